"""Damage done on purpose: whether a task notices when a model loses what it has read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effc.diagnostics import EffcError, did_you_mean

RANDOM_KV, RANDOM_IMAGE = "random-kv", "random-image"
KINDS = {
    RANDOM_KV: "the cached tokens of the context, in each KV head other ones",
    RANDOM_IMAGE: "the visual tokens of the prompt",
}
"""Kind -> what is taken away."""

_STREAM = 1
"""Apart from the streams that items are drawn from."""


@dataclass(frozen=True)
class Ablation:
    """A random share of something is taken away.

    Attributes:
        kind: a key of `KINDS`.
        share: 0 takes nothing, 1 all.
        seed: of the choice.
    """

    kind: str
    share: float
    seed: int

    @staticmethod
    def parse(text: str, seed: int) -> Ablation:
        """The ablation in "random-kv=.5".

        Raises:
            EffcError: E0101, an unknown kind or no share from 0 to 1.
        """
        kind, _, number = text.partition("=")
        if kind not in KINDS:
            help = did_you_mean(kind, KINDS)
            raise EffcError("E0101", f"--ablate knows no {kind!r}", help=help)
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise EffcError(
                "E0101",
                f"--ablate {kind} takes a share from 0 to 1, found {number!r}",
                help=f"for a half: --ablate {kind}=.5",
            )
        return Ablation(kind, share, seed)

    def __str__(self) -> str:
        return f"{self.kind}={self.share:g}"

    def generator(self, index: int) -> np.random.Generator:
        """The random numbers for one item."""
        return np.random.Generator(np.random.PCG64([self.seed, index, _STREAM]))

    def kept(self, count: int) -> int:
        """How many of `count` things stay: the share taken is rounded to nearest, halves up."""
        return count - int(self.share * count + 0.5)

    def choose(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Which of `count` things stay, ascending."""
        return np.sort(generator.permutation(count)[: self.kept(count)])
