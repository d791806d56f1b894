"""Prompts as callers pass them: a padded tensor and a mask, checked and stripped of padding."""

from __future__ import annotations

import torch
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.ir.program import ModelInfo
from effc.runtime.arguments import bad_argument


def read_prompts(
    input_ids: Tensor, attention_mask: Tensor | None, info: ModelInfo
) -> list[list[int]]:
    """The real tokens of each row.

    Args:
        input_ids: [B, T] integers.
        attention_mask: [B, T], zero at padding; the ones of a row are consecutive.
        info: the model's context and vocabulary.

    Raises:
        GenerationError: E0701 a row is longer than the context; E0702 a token lies outside the
            vocabulary; E0703 a tensor of the wrong type or shape, an empty row, a mask with holes.
    """
    check_ids(input_ids)
    first, end = _extents(input_ids, attention_mask)
    prompts = [
        row[start:stop] for row, start, stop in zip(input_ids.tolist(), first, end, strict=True)
    ]
    for row, (prompt, start) in enumerate(zip(prompts, first, strict=True)):
        _check_length(prompt, row, info)
        _check_vocabulary(prompt, row, start, info)
    return prompts


def require_left_padding(attention_mask: Tensor | None) -> None:
    """Refuse a mask whose rows do not end in a real token: new tokens follow the last column.

    Raises:
        GenerationError: E0703, naming the row.
    """
    if attention_mask is None:
        return
    ended = (attention_mask[:, -1] == 0).nonzero().flatten().tolist()
    if ended:
        raise bad_argument(
            "attention_mask",
            f"padding at the right end of row {ended[0]}",
            "padded at the left",
            'tokenizer.padding_side = "left"',
        )


def place_answers(input_ids: Tensor, answers: list[list[int]], pad: int) -> Tensor:
    """Prompts `[B, T]` followed by the answers, `[B, T + longest]`, filled up with `pad`."""
    longest = max(len(answer) for answer in answers)
    padded = [answer + [pad] * (longest - len(answer)) for answer in answers]
    new = torch.tensor(padded, dtype=torch.int64, device=input_ids.device)
    return torch.cat([input_ids.long(), new.view(len(answers), longest)], dim=1)


def place_rows(rows: list[Tensor], input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Rows `[T_b, V]` of the real tokens at their columns of `[B, T, V]`, zeros at padding."""
    first, end = _extents(input_ids, attention_mask)
    out = rows[0].new_zeros(*input_ids.shape, rows[0].shape[-1])
    for b, (row, start, stop) in enumerate(zip(rows, first, end, strict=True)):
        out[b, start:stop] = row
    return out


def check_ids(input_ids: object) -> None:
    if not isinstance(input_ids, Tensor):
        raise bad_argument("input_ids", type(input_ids).__name__, "a tensor [B, T] of token ids")
    if input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype == torch.bool:
        raise bad_argument("input_ids", input_ids.dtype, "a tensor of integers")
    if input_ids.ndim != 2:
        raise bad_argument(
            "input_ids",
            list(input_ids.shape),
            "a tensor of shape [B, T]",
            "input_ids.unsqueeze(0) makes a batch of one" if input_ids.ndim == 1 else None,
        )
    if input_ids.numel() == 0:
        raise bad_argument(
            "input_ids", list(input_ids.shape), "at least one row of at least one token"
        )


def _extents(ids: Tensor, mask: Tensor | None) -> tuple[list[int], list[int]]:
    """First column of the real tokens of each row, and the column after the last."""
    B, T = ids.shape
    if mask is None:
        return [0] * B, [T] * B
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        found = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise bad_argument("attention_mask", found, f"of the shape of input_ids, {[B, T]}")
    real = mask != 0
    count = real.sum(1)
    first = real.int().argmax(1)
    end = T - real.flip(1).int().argmax(1)
    for row in range(B):
        if count[row] == 0:
            raise bad_argument("attention_mask", f"row {row} all padding", "1 at a token per row")
        if end[row] - first[row] != count[row]:
            raise bad_argument(
                "attention_mask", f"holes in row {row}", "1 on one stretch of columns per row"
            )
    return first.tolist(), end.tolist()


def _check_length(prompt: list[int], row: int, info: ModelInfo) -> None:
    if info.context is not None and len(prompt) > info.context:
        raise GenerationError(
            "E0701",
            f"the prompt has {len(prompt)} tokens and the context of the model {info.context}",
            where=f"input_ids, row {row}",
            help=f"cut the prompt to its last {info.context} tokens or fewer",
        )


def _check_vocabulary(prompt: list[int], row: int, first: int, info: ModelInfo) -> None:
    if info.vocabulary is None:
        return
    for column, token in enumerate(prompt, start=first):
        if not 0 <= token < info.vocabulary:
            raise GenerationError(
                "E0702",
                f"token id {token} lies outside the vocabulary of 0..{info.vocabulary - 1}",
                where=f"input_ids, row {row}, column {column}",
                help="tokenize the prompt with the tokenizer of this model",
            )
