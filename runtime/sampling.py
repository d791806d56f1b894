"""From logits to the next token.

The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p. Every
sequence draws from its own generator, and one uniform number decides each of its tokens, so that
what a sequence draws does not depend on its batch mates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.runtime.arguments import bad_argument, require_bool, require_integer, require_number


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen.

    Attributes:
        do_sample: draw at random; otherwise the token with the largest logit, the first of equals.
        temperature: logits are divided by it; > 0.
        top_k: keep the k most likely tokens and those that tie with the last of them; >= 1.
        top_p: keep the smallest set of most likely tokens whose mass reaches it; in (0, 1].
            Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.
        min_p: keep the tokens at least `min_p` times as likely as the likeliest; in [0, 1].
            Nguyen et al., "Turning Up the Heat: Min-p Sampling", 2024.
        repetition_penalty: logits of tokens seen before are divided by it, negative ones
            multiplied; > 0, applied to greedy choice too. Keskar et al., "CTRL", 2019.
        seed: sequence b draws from seed + b, or from seed[b] if there is one for each: a request
            with a seed of its own draws the same numbers in every batch. None takes a seed from
            torch's default generator.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | list[int] | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require_bool("do_sample", self.do_sample)
        require_number("temperature", self.temperature, least=0, most=math.inf)
        if self.do_sample and self.temperature == 0:
            raise bad_argument("temperature", 0, "> 0 to sample", "do_sample=False is greedy")
        if self.top_k is not None:
            require_integer("top_k", self.top_k, 1)
        if self.top_p is not None:
            require_number("top_p", self.top_p, above=0, most=1)
        if self.min_p is not None:
            require_number("min_p", self.min_p, least=0, most=1)
        if self.repetition_penalty is not None:
            require_number("repetition_penalty", self.repetition_penalty, above=0, most=math.inf)
        for seed in self._seeds():
            require_integer("seed", seed, 0)
        if not self.do_sample:
            self._warn_unused()

    def _warn_unused(self) -> None:
        unused = [n for n in ("top_k", "top_p", "min_p") if getattr(self, n) is not None]
        if self.temperature not in (0, 1):
            unused.insert(0, "temperature")
        if unused:
            warnings.warn(f"{', '.join(unused)} has no effect without do_sample=True", stacklevel=4)

    def generators(self, rows: int) -> list[torch.Generator]:
        """One generator per sequence.

        Raises:
            GenerationError: E0703, a list of seeds that is not one per sequence.
        """
        seeds = self._seeds()
        if isinstance(self.seed, list | tuple) and len(seeds) != rows:
            raise bad_argument("seed", list(seeds), f"one integer, or one for each of {rows} rows")
        if not isinstance(self.seed, list | tuple):
            first = seeds[0] if seeds else int(torch.randint(2**48, ()))
            seeds = tuple(first + row for row in range(rows))
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def _seeds(self) -> tuple[int, ...]:
        if self.seed is None:
            return ()
        return tuple(self.seed) if isinstance(self.seed, list | tuple) else (self.seed,)


def sample(
    logits: Tensor,
    options: SamplingOptions,
    generators: Sequence[torch.Generator],
    histories: Sequence[Sequence[int]],
) -> list[int]:
    """Choose one token per sequence.

    Args:
        logits: [B, V].
        options: how to choose.
        generators: [B], used only to draw at random.
        histories: [B], tokens of prompt and answer so far, used only by the repetition penalty.

    Returns:
        [B] token ids.

    Raises:
        GenerationError: E0705, the logits are not numbers.
    """
    scores = logits.float()
    if options.repetition_penalty is not None:
        scores = penalize_repetition(scores, histories, options.repetition_penalty)
    if not options.do_sample:
        tokens = scores.argmax(-1)
        _require_numbers(scores.gather(-1, tokens[:, None]))
        return tokens.tolist()
    probabilities = sampling_distribution(scores, options)
    _require_numbers(probabilities.sum(-1))
    return [draw(p, g) for p, g in zip(probabilities, generators, strict=True)]


def penalize_repetition(
    scores: Tensor, histories: Sequence[Sequence[int]], penalty: float
) -> Tensor:
    """Scores `[B, V]` with those of tokens in each row's history made less likely."""
    scores = scores.clone()
    for row, history in zip(scores, histories, strict=True):
        seen = torch.tensor(history, dtype=torch.int64, device=scores.device)
        old = row[seen]
        row[seen] = torch.where(old < 0, old * penalty, old / penalty)
    return scores


def sampling_distribution(scores: Tensor, options: SamplingOptions) -> Tensor:
    """The law `[B, V]` that tokens are drawn from, given scores `[B, V]`."""
    scores = scores / options.temperature
    if options.top_k is not None:
        last = scores.topk(min(options.top_k, scores.shape[-1])).values[..., -1:]
        scores = scores.masked_fill(scores < last, -torch.inf)
    if options.top_p is not None and options.top_p < 1:
        scores = scores.masked_fill(_outside_nucleus(scores, options.top_p), -torch.inf)
    probabilities = scores.softmax(-1)
    if options.min_p is not None:
        floor = options.min_p * probabilities.amax(-1, keepdim=True)
        scores = scores.masked_fill(probabilities < floor, -torch.inf)
        probabilities = scores.softmax(-1)
    return probabilities


def draw(probabilities: Tensor, generator: torch.Generator) -> int:
    """One index drawn with `probabilities` [V], by inverting the distribution function."""
    cumulative = probabilities.double().cumsum(0).cpu()
    total = cumulative[-1]
    point = torch.rand((), dtype=torch.float64, generator=generator) * total
    # Rounding may reach the total itself, past the last token of positive probability.
    point = torch.minimum(point, torch.nextafter(total, total.new_zeros(())))
    return int(torch.searchsorted(cumulative, point, right=True))


def _outside_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """True for tokens outside the smallest set whose mass reaches `top_p`."""
    ascending, order = scores.sort(-1)
    outside = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[..., -1] = False
    return torch.empty_like(outside).scatter_(-1, order, outside)


def _require_numbers(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise GenerationError(
            "E0705",
            "the logits contain NaN or infinity, so no token can be chosen",
            help="a wider element type (target.dtype) or unquantized layers show where it begins",
        )
