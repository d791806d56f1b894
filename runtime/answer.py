"""One sequence being generated, and when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from effc.ir.program import ModelInfo
from effc.runtime.arguments import bad_argument
from effc.runtime.options import GenerationOptions

Decode = Callable[[Sequence[int]], str]


@dataclass
class Answer:
    """The new tokens of one prompt.

    Attributes:
        prompt: its tokens.
        generator: where its random numbers come from.
        features: the rows [F, W] that the image tokens of the prompt take, None without images.
        tokens: the new tokens so far.
        logprobs: the log-probability of each, if asked for.
        finish: why it ended: "eos", "stop", "length", "context", "interrupted"; None while open.
    """

    prompt: list[int]
    generator: torch.Generator
    features: torch.Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None

    @property
    def history(self) -> list[int]:
        """Prompt and new tokens."""
        return self.prompt + self.tokens


@dataclass(frozen=True)
class StopRule:
    """When an answer ends.

    Attributes:
        new_tokens: the most tokens it may get.
        context: the most tokens that prompt and answer may have together, None for no bound.
        ends: tokens that end it.
        stops: texts that end it.
        decode: tokens to text, needed for `stops`.
    """

    new_tokens: int
    context: int | None
    ends: frozenset[int]
    stops: tuple[str, ...]
    decode: Decode | None

    @staticmethod
    def of(options: GenerationOptions, info: ModelInfo, decode: Decode | None) -> StopRule:
        """The rule that a caller's options ask for.

        Raises:
            GenerationError: E0703, stop strings without a tokenizer.
        """
        if options.stops and decode is None:
            raise bad_argument(
                "stop_strings", list(options.stops), "left out: this model has no tokenizer"
            )
        ends = options.end_tokens(info)
        return StopRule(options.new_tokens, info.context, ends, options.stops, decode)

    def room(self, prompt: Sequence[int]) -> int:
        """The most tokens that can be added to a prompt."""
        if self.context is None:
            return self.new_tokens
        return min(self.new_tokens, self.context - len(prompt))

    def close(self, answer: Answer) -> None:
        """Note why an answer ends, if it ends here."""
        if answer.tokens and answer.tokens[-1] in self.ends:
            answer.finish = "eos"
        elif self._stopped(answer.tokens):
            answer.finish = "stop"
        elif len(answer.tokens) >= self.new_tokens:
            answer.finish = "length"
        elif len(answer.tokens) >= self.room(answer.prompt):
            answer.finish = "context"

    def _stopped(self, tokens: list[int]) -> bool:
        if not self.stops or self.decode is None or not tokens:
            return False
        longest = max(map(len, self.stops))
        newest = len(self.decode(tokens[-1:]))
        # A stop string that appears now ends in the newest token, so a short tail holds it. Tokens
        # without a text of their own (special ones, parts of a character) make the tail longer;
        # the margin is for tokens that a tokenizer joins to their neighbours.
        tail = longest + 8
        while len(text := self.decode(tokens[-tail:])) < longest + newest and tail < len(tokens):
            tail *= 2
        return any(stop in text for stop in self.stops)
