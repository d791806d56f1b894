"""How many keys attention looks at, for queries that follow tokens in a cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees, as in `effc::attention`.

    Attributes:
        causal: none after its own token.
        window: the last `window` tokens, its own included.
        chunk: tokens of its own chunk of `chunk` tokens.
    """

    causal: bool = True
    window: int | None = None
    chunk: int | None = None

    def first(self, query: int) -> int:
        """The oldest token that a query sees."""
        by_window = 0 if self.window is None else query - self.window + 1
        by_chunk = 0 if self.chunk is None else query // self.chunk * self.chunk
        return max(0, by_window, by_chunk)

    def last(self, query: int, newest: int) -> int:
        """The newest token that a query sees."""
        end = query if self.causal else newest
        return end if self.chunk is None else min(end, (query // self.chunk + 1) * self.chunk - 1)


@lru_cache(maxsize=4096)
def pairs(mask: Mask, tokens: int, held: int = 0) -> int:
    """(query, key) pairs of `tokens` new tokens after `held` cached ones."""
    newest = held + tokens - 1
    queries = range(held, held + tokens)
    return sum(max(0, mask.last(q, newest) - mask.first(q) + 1) for q in queries)


def keys_read(mask: Mask, tokens: int, held: int = 0) -> int:
    """Distinct tokens that any of the new tokens sees."""
    return held + tokens - mask.first(held)
