"""What a caller of `generate` may ask for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from effc.diagnostics import GenerationError, did_you_mean
from effc.ir.program import ModelInfo
from effc.runtime.arguments import bad_argument, require_bool, require_integer
from effc.runtime.sampling import SamplingOptions

DEFAULT_NEW_TOKENS = 20


@dataclass(frozen=True)
class GenerationOptions(SamplingOptions):
    """Arguments of `generate`, named as in transformers.

    Attributes:
        max_new_tokens: the most tokens to add; None is transformers' default of 20. Fewer come
            out where the context ends.
        eos_token_id: token or tokens that end a sequence; None takes the model's own, an empty
            list is none at all.
        pad_token_id: what fills the places after the end of a sequence; None takes the model's
            own, else the first end token, else 0.
        stop_strings: text or texts that end a sequence once they appear in its answer.
        logprobs: also report the log-probability of every new token under the model's own law,
            before penalties and temperature.
    """

    max_new_tokens: int | None = None
    eos_token_id: int | list[int] | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    stop_strings: str | list[str] | tuple[str, ...] | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bool("logprobs", self.logprobs)
        if self.max_new_tokens is not None:
            require_integer("max_new_tokens", self.max_new_tokens, 0)
        if self.pad_token_id is not None:
            require_integer("pad_token_id", self.pad_token_id, 0)
        for token in _as_tuple(self.eos_token_id):
            require_integer("eos_token_id", token, 0)
        for text in _as_tuple(self.stop_strings):
            if not isinstance(text, str) or not text:
                raise bad_argument("stop_strings", text, "a non-empty text or several")

    @staticmethod
    def of(arguments: dict[str, Any]) -> GenerationOptions:
        """The options that keyword arguments name.

        Raises:
            GenerationError: E0703, an unknown argument or a value that cannot be used.
        """
        known = [field.name for field in fields(GenerationOptions)]
        for name in arguments:
            if name not in known:
                raise GenerationError(
                    "E0703", f"generate has no argument {name!r}", help=did_you_mean(name, known)
                )
        return GenerationOptions(**arguments)

    @property
    def new_tokens(self) -> int:
        """The most tokens to add to each sequence."""
        return DEFAULT_NEW_TOKENS if self.max_new_tokens is None else self.max_new_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return _as_tuple(self.stop_strings)

    def end_tokens(self, info: ModelInfo) -> frozenset[int]:
        """The tokens that end a sequence."""
        return frozenset(info.eos if self.eos_token_id is None else _as_tuple(self.eos_token_id))

    def pad_token(self, info: ModelInfo) -> int:
        """What fills the places after the end of a sequence."""
        if self.pad_token_id is not None:
            return self.pad_token_id
        if info.pad is not None:
            return info.pad
        ends = info.eos if self.eos_token_id is None else _as_tuple(self.eos_token_id)
        return ends[0] if ends else 0


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)
