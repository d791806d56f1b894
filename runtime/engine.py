"""The engine: prompts in, tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.runtime.answer import Answer, Decode, StopRule
from effc.runtime.arguments import bad_argument
from effc.runtime.options import GenerationOptions
from effc.runtime.prompts import place_answers, place_rows, read_prompts, require_left_padding
from effc.runtime.result import GenerationResult, Meter, context_notes
from effc.runtime.sampling import sample
from effc.runtime.session import STAGE, Runnable, Session
from effc.runtime.visual import image_features


class Streamer(Protocol):
    """Takes tokens as they come, like the streamers of transformers."""

    def put(self, value: Tensor) -> None:
        """First the prompt, then each new token, as 1-D tensors on the CPU."""
        ...

    def end(self) -> None:
        """No more tokens will come."""
        ...


class Engine:
    """Runs an autoregressive program.

    Args:
        executable: anything with a `program` that runs its stages when called.
        decode: tokens to text, needed for `stop_strings` only.
        device: where the cache lives; that of the executable.

    Raises:
        GenerationError: E0704, the program is no language model with a cache.
    """

    def __init__(
        self,
        executable: Runnable,
        *,
        decode: Decode | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.program = executable.program
        self._executable = executable
        self._decode = decode
        self._device = device
        if self.program.loop != "autoregressive" or STAGE not in self.program.stages:
            raise GenerationError(
                "E0704",
                "this model is a function of its inputs and has no next token to generate (its "
                f"loop is {self.program.loop!r}, its stages are "
                f"{', '.join(self.program.stages) or 'none'})",
                where=self.program.info.source,
                help="call the model instead, or compile a causal language model",
            )

    @torch.inference_mode()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """Logits `[B, T, V]` after every token of `input_ids` [B, T].

        Images [N, 3, height, width] go to the image tokens of the rows, in order. Positions count
        from 0 at the first real token of a row; padding, left or right, gets logits of zero.

        Raises:
            GenerationError: E0701 to E0703, see `effc.runtime.prompts.read_prompts` and
                `effc.runtime.visual.image_features`.
        """
        prompts = read_prompts(input_ids, attention_mask, self.program.info)
        features = image_features(self._executable, self.program, prompts, pixel_values)
        session = self._session(max(map(len, prompts)), features)
        rows = session.advance_all(prompts)
        return place_rows(rows, input_ids, attention_mask).to(input_ids.device)

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        pixel_values: Tensor | None = None,
        streamer: Streamer | None = None,
        **options: Any,
    ) -> Tensor:
        """Continue each prompt; the result has the layout of transformers' `generate`.

        Args:
            input_ids: [B, T] token ids, padded at the left.
            attention_mask: [B, T], zero at padding; None for no padding.
            pixel_values: [N, 3, height, width], the images whose features the image tokens take,
                in order over the rows; None without images.
            streamer: is given the tokens of a single prompt as they come.
            options: the attributes of `GenerationOptions`.

        Returns:
            [B, T + new] int64: the prompts as given, their answers, and padding after rows that
            ended early.

        Raises:
            GenerationError: E0701 a prompt longer than the context, E0702 a token outside the
                vocabulary, E0703 a wrong argument, E0705 logits that are not numbers.
        """
        chosen = GenerationOptions.of(options)
        result = self._generate(input_ids, attention_mask, pixel_values, streamer, chosen)
        return place_answers(input_ids, result.tokens, chosen.pad_token(self.program.info))

    def generate_result(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        pixel_values: Tensor | None = None,
        streamer: Streamer | None = None,
        **options: Any,
    ) -> GenerationResult:
        """As `generate`, with the circumstances; an interrupt (Ctrl-C) keeps what is there."""
        chosen = GenerationOptions.of(options)
        return self._generate(input_ids, attention_mask, pixel_values, streamer, chosen)

    @torch.inference_mode()
    def _generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None,
        streamer: Streamer | None,
        options: GenerationOptions,
    ) -> GenerationResult:
        meter = Meter()
        info = self.program.info
        prompts = read_prompts(input_ids, attention_mask, info)
        require_left_padding(attention_mask)
        _require_single(streamer, prompts)
        rule = StopRule.of(options, info, self._decode)
        features = image_features(self._executable, self.program, prompts, pixel_values)
        generators = options.generators(len(prompts))
        answers = [Answer(*row) for row in zip(prompts, generators, features, strict=True)]
        return self._run(answers, options, rule, streamer, meter)

    def _run(
        self,
        answers: list[Answer],
        options: GenerationOptions,
        rule: StopRule,
        streamer: Streamer | None,
        meter: Meter,
    ) -> GenerationResult:
        """Prefill, then choose and feed one token per open answer until all are closed."""
        _stream(streamer, answers[0].prompt)
        session, live = self._open(answers, rule)
        try:
            feed = [answer.prompt for answer in live]
            while live:
                logits = session.advance(feed)
                meter.note(session.store)
                _extend(live, logits, options)
                for answer in live:
                    rule.close(answer)
                _stream(streamer, live[0].tokens[-1:])
                open_rows = [row for row, answer in enumerate(live) if answer.finish is None]
                session.keep_rows(open_rows)
                live = [live[row] for row in open_rows]
                feed = [answer.tokens[-1:] for answer in live]
        except KeyboardInterrupt:
            for answer in answers:
                answer.finish = answer.finish or "interrupted"
        if streamer is not None:
            streamer.end()
        return _result(answers, options, rule, meter, session)

    def _open(self, answers: list[Answer], rule: StopRule) -> tuple[Session, list[Answer]]:
        """A session for the answers that have room for a token; the others are closed."""
        for answer in answers:
            rule.close(answer)
        live = [answer for answer in answers if answer.finish is None]
        longest = [len(answer.prompt) + rule.room(answer.prompt) for answer in live]
        features = [answer.features for answer in live]
        return self._session(max(longest, default=1), features), live

    def _session(self, capacity: int, features: list[Tensor | None]) -> Session:
        """An empty cache for as many sequences as there are entries of `features`."""
        return Session(self._executable, len(features), capacity, self._device, features)


def _extend(live: list[Answer], logits: Tensor, options: GenerationOptions) -> None:
    """Choose the next token of every answer."""
    tokens = sample(logits, options, [a.generator for a in live], [a.history for a in live])
    for answer, token in zip(live, tokens, strict=True):
        answer.tokens.append(token)
    if options.logprobs:
        chosen = torch.tensor(tokens, device=logits.device)[:, None]
        values = logits.float().log_softmax(-1).gather(1, chosen)
        for answer, value in zip(live, values.flatten().tolist(), strict=True):
            answer.logprobs.append(value)


def _result(
    answers: list[Answer],
    options: GenerationOptions,
    rule: StopRule,
    meter: Meter,
    session: Session,
) -> GenerationResult:
    decoded = sum(max(0, len(answer.tokens) - 1) for answer in answers)
    return GenerationResult(
        tokens=[answer.tokens for answer in answers],
        logprobs=[answer.logprobs for answer in answers] if options.logprobs else None,
        finish_reasons=[answer.finish or "" for answer in answers],
        timings=meter.timings(decoded),
        counters=meter.counters(session.store),
        notes=context_notes(answers, options.new_tokens, rule.context),
    )


def _require_single(streamer: Streamer | None, prompts: Sequence[Sequence[int]]) -> None:
    if streamer is not None and len(prompts) > 1:
        raise bad_argument("streamer", f"a batch of {len(prompts)}", "used with one prompt")


def _stream(streamer: Streamer | None, tokens: list[int]) -> None:
    if streamer is not None:
        streamer.put(torch.tensor(tokens, dtype=torch.int64))
