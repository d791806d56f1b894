"""What transformers itself answers, and whether its answers can decide anything."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NEW_TOKENS = 64
# Longer than a page and than any window used here; shorter than both; in between.
PROMPT_LENGTHS = (41, 7, 26)
# Two computations in fp32 differ by a few times the error of one.
SAFETY = 10.0
# Assumed rounding, relative to the largest logit, of models that cannot run in fp64.
ROUNDING = 1e-5
# Share of the largest logit by which a compiled model may differ.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Answer:
    """One prompt continued greedily, alone in its batch.

    Attributes:
        prompt: [T].
        tokens: [T + new], prompt included.
        logits: [T + new, V] after every token.
        error: what fp32 rounding does to a logit: the largest distance from fp64.
        margin: the smallest lead of a chosen token over the second best.
    """

    prompt: Tensor
    tokens: Tensor
    logits: Tensor
    error: float
    margin: float

    @property
    def variety(self) -> int:
        """The number of distinct new tokens."""
        return len(set(self.tokens[len(self.prompt) :].tolist()))

    @property
    def tolerance(self) -> float:
        """How far a logit of a compiled model may lie from the original's."""
        return TOLERANCE * float(self.logits.abs().max())

    @property
    def agrees_with_forward(self) -> bool:
        """Whether one call over all tokens chooses the tokens that generating chose."""
        chosen = self.logits[len(self.prompt) - 1 : -1].argmax(-1)
        return torch.equal(chosen, self.tokens[len(self.prompt) :])

    @property
    def objection(self) -> str:
        """Why a comparison with this answer would be void; empty if it is not."""
        if not bool(self.logits.isfinite().all()):
            return "the logits are not finite"
        if not self.agrees_with_forward:
            return "transformers generates other tokens than its own forward chooses"
        if self.margin < SAFETY * self.error:
            return f"the margin {self.margin:.1e} drowns in the rounding {self.error:.1e}"
        return ""


def prompts(
    vocabulary: int, lengths: Sequence[int] = PROMPT_LENGTHS, seed: int = 1
) -> list[Tensor]:
    """Random prompts [T] that avoid the first few ids, which tend to be special."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, vocabulary, (n,), generator=generator) for n in lengths]


def left_padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Ragged rows as ids [B, T] and the mask [B, T] that is zero at the padding."""
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = tokens
        mask[row, width - len(tokens) :] = 1
    return ids, mask.long()


@torch.no_grad()
def answers(
    model: Any,
    questions: Sequence[Tensor],
    new_tokens: int = NEW_TOKENS,
    *,
    use_cache: bool = True,
) -> list[Answer]:
    """Continue every prompt alone with the model's own `generate`.

    Args:
        model: a transformers causal language model in fp32, without an end token.
        questions: prompts [T].
        new_tokens: of every answer.
        use_cache: let transformers use its cache.
    """
    exact = deepcopy(model).double()
    return [_answer(model, exact, prompt, new_tokens, use_cache) for prompt in questions]


def _answer(model: Any, exact: Any, prompt: Tensor, new_tokens: int, use_cache: bool) -> Answer:
    tokens = model.generate(
        prompt[None], attention_mask=torch.ones_like(prompt)[None],
        max_new_tokens=new_tokens, do_sample=False, use_cache=use_cache,
    )  # fmt: skip
    logits = model(tokens, use_cache=False).logits[0].float()
    try:
        truth = exact(tokens, use_cache=False).logits[0]
    except RuntimeError:  # the model mixes precisions on its own
        truth = logits * (1 + ROUNDING)
    best = logits[len(prompt) - 1 : -1].topk(2, dim=-1).values
    return Answer(
        prompt=prompt,
        tokens=tokens[0],
        logits=logits,
        error=float((logits - truth).abs().max()),
        margin=float((best[:, 0] - best[:, 1]).min()),
    )
