"""Both models read the same text: one pass gives laws and streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.evaluate.divergence import RowDivergence, row_divergence
from effc.evaluate.layers import LayerErrors, Tapped, Taps
from effc.evaluate.subject import Subject
from effc.evaluate.texts import EvaluationText
from effc.runtime.session import STAGE, Session

BATCH_BYTES = 256 << 20
"""About how much the logits of one batch may take, per model."""


def compare_reading(
    original: Subject, rewritten: Subject, text: EvaluationText
) -> tuple[list[RowDivergence], LayerErrors]:
    """Let both models read a text, a few rows of equal length at a time.

    Returns:
        What each row says of the laws, and the errors of the layers over all rows.

    Raises:
        GenerationError: E0701 or E0702, the text does not fit the model; E0705, the original's
            logits are not numbers.
    """
    first, second = Tapped(original, STAGE), Tapped(rewritten, STAGE)
    layers = LayerErrors()
    found: list[RowDivergence] = []
    width = original.program.info.vocabulary or 1 << 16
    for rows in batches(text.rows, width):
        p, streams = _read(original, first, rows)
        if any(bool(row.isnan().any()) for row in p):
            raise GenerationError(
                "E0705",
                "the logits of the original model are not numbers, so nothing can be compared",
                where=original.program.info.source,
                help='compile with target.dtype = "float32"',
            )
        q, rewritten_streams = _read(rewritten, second, rows)
        layers.add(streams, rewritten_streams)
        found += [row_divergence(a, b, row) for a, b, row in zip(p, q, rows, strict=True)]
    return found, layers


def batches(
    rows: Sequence[tuple[int, ...]], vocabulary: int
) -> Iterator[Sequence[tuple[int, ...]]]:
    """Neighbouring rows of equal length, few enough for their logits to fit `BATCH_BYTES`."""
    start = 0
    while start < len(rows):
        length = len(rows[start])
        most = max(1, BATCH_BYTES // (length * vocabulary * 4))
        end = start + 1
        while end < len(rows) and end - start < most and len(rows[end]) == length:
            end += 1
        yield rows[start:end]
        start = end


@torch.inference_mode()
def _read(
    subject: Subject, tapped: Tapped, rows: Sequence[tuple[int, ...]]
) -> tuple[list[Tensor], Taps]:
    """Logits [T, V] of each row, and the streams [B, T, W] of all."""
    session = Session(tapped, len(rows), len(rows[0]), subject.program.device)
    logits = session.advance_all(rows)
    return logits, tapped.take()
