"""How long two models say the same when each takes its likeliest token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from effc.diagnostics import GenerationError
from effc.evaluate.subject import Subject
from effc.evaluate.texts import EvaluationText

PROMPTS = 16
NEW_TOKENS = 32


@dataclass(frozen=True)
class GreedyAnswers:
    """What one model says to the prompts.

    Attributes:
        tokens: the new tokens per prompt.
        counters: of the run, see `effc.runtime.result.GenerationResult`.
    """

    tokens: list[list[int]]
    counters: dict[str, int]


def greedy_answers(
    subject: Subject, text: EvaluationText, *, prompts: int = PROMPTS, new_tokens: int = NEW_TOKENS
) -> GreedyAnswers:
    """Continue the first halves of the first rows, all with the same number of tokens.

    Rows do not end before their time: an end token counts like any other. A model whose logits
    are no numbers says nothing.
    """
    beginnings = [row[: len(row) // 2] for row in text.rows[:prompts]]
    T = max(map(len, beginnings))
    ids = torch.tensor([[*[0] * (T - len(row)), *row] for row in beginnings])
    mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in beginnings])
    context = subject.program.info.context
    room = new_tokens if context is None else min(new_tokens, context - T)
    try:
        result = subject.engine.generate_result(ids, mask, max_new_tokens=room, eos_token_id=())
    except GenerationError as error:
        if error.code != "E0705":
            raise
        return GreedyAnswers([[] for _ in beginnings], {})
    return GreedyAnswers(result.tokens, result.counters)


def agreement(original: GreedyAnswers, rewritten: GreedyAnswers) -> dict[str, float | int]:
    """The entry "greedy" of a quality report.

    Returns:
        mean_length: tokens before the answers part, on average; new_tokens: of each answer;
        identical: answers that never part; prompts: their number.
    """
    pairs = list(zip(original.tokens, rewritten.tokens, strict=True))
    common = [common_prefix(left, right) for left, right in pairs]
    return {
        "mean_length": sum(common) / len(common),
        "new_tokens": max(len(left) for left, _ in pairs),
        "identical": sum(left == right for left, right in pairs),
        "prompts": len(common),
    }


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """The number of leading elements in which two sequences agree."""
    pairs = enumerate(zip(left, right, strict=False))
    shorter = min(len(left), len(right))
    return next((i for i, (a, b) in pairs if a != b), shorter)
