"""What came out of a generation, and what it took."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter

from effc.runtime.answer import Answer
from effc.runtime.kv_store import PagedStore


@dataclass(frozen=True)
class GenerationResult:
    """Answers with their circumstances, one list entry per row of the batch.

    Attributes:
        tokens: the new tokens, without padding.
        logprobs: their log-probabilities, None unless asked for.
        finish_reasons: "eos", "stop", "length", "context" or "interrupted".
        timings: prefill_s, decode_s (after the first token), tokens_per_s (of decode, all rows).
        counters: tokens and pages, see `StoreCounters`, and bytes, see `PagedStore.bytes`, the
            latter when the cache was largest.
        notes: what a caller should know, e.g. that the context ended a row early.
    """

    tokens: list[list[int]]
    logprobs: list[list[float]] | None
    finish_reasons: list[str]
    timings: dict[str, float]
    counters: dict[str, int]
    notes: list[str]


class Meter:
    """Time and cache of one generation."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self._first: float | None = None
        self._bytes: dict[str, int] = {}

    def note(self, store: PagedStore) -> None:
        """Called after each step: the first one was the prefill."""
        if self._first is None:
            self._first = perf_counter()
        now = store.bytes()
        if now["held"] >= self._bytes.get("held", 0):
            self._bytes = now

    def timings(self, decoded: int) -> dict[str, float]:
        """Seconds, given how many tokens came after the first of each row."""
        end = perf_counter()
        first = end if self._first is None else self._first
        decode = end - first
        return {
            "prefill_s": first - self._start,
            "decode_s": decode,
            "tokens_per_s": decoded / decode if decoded else 0.0,
        }

    def counters(self, store: PagedStore | None) -> dict[str, int]:
        """Counters of a store and its bytes."""
        counted = {} if store is None else asdict(store.counters())
        return counted | {f"bytes_{name}": size for name, size in self._bytes.items()}


def context_notes(answers: list[Answer], asked: int, context: int | None) -> list[str]:
    """A note for every row that the context ended before it had the tokens asked for."""
    return [
        f"row {row}: the context of {context} tokens ended after {len(answer.tokens)} of {asked} "
        f"new tokens (the prompt has {len(answer.prompt)})"
        for row, answer in enumerate(answers)
        if answer.finish == "context"
    ]
