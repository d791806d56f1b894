"""Masks that a model computes from sizes become words, and positions it counts become an input."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effc
from effc.ir.journal import Journal
from effc.ir.passbase import Pass
from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.passes.raising.attention import RaiseAttention
from effc.passes.raising.masks import RecognizeMasks, Statement, _statement
from effc.passes.raising.positions import FindPositions
from tests.programs import capture, run_passes

Mask = Callable[[Tensor, Tensor], Tensor]
HEADS, WIDTH = 2, 8


class Attending(nn.Module):
    """One attention under a mask that the module computes from the length of its input."""

    def __init__(self, mask: Mask, positions: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mask = mask
        self.positions = positions
        self.tokens = nn.Embedding(32, HEADS * WIDTH)
        self.places = nn.Embedding(64, HEADS * WIDTH)
        self.qkv = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        self.head = nn.Linear(HEADS * WIDTH, 32)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        B, T = ids.shape
        places = positions if self.positions is None else self.positions(ids)
        x = self.tokens(ids) + self.places(places)
        split = (B, T, HEADS, WIDTH)
        q, k, v = (part.view(split).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        index = torch.arange(T)
        mask = self.mask(index[:, None], index[None, :])[None, None]
        y = F.scaled_dot_product_attention(q, k, v, mask)
        return self.head(y.transpose(1, 2).reshape(B, T, HEADS * WIDTH))


def canonical(module: nn.Module) -> Program:
    ids = torch.zeros(2, 7, dtype=torch.long)
    return capture(module, ids, torch.arange(7).expand(2, 7).contiguous())


def said(mask: Mask) -> tuple[object, ...]:
    """Mask, causality, window and chunk of the attention after the pass."""
    program = canonical(Attending(mask))
    run_passes(program, *_attention_passes())
    node = next(n for _, n in program.nodes() if op_name(n) == "effc.attention.default")
    return tuple(node.args[3:7])


def _attention_passes() -> list[Pass]:
    return [RaiseAttention(), RecognizeMasks()]


def _allowed(causal: bool, window: int | None, chunk: int | None) -> Mask:
    def mask(q: Tensor, k: Tensor) -> Tensor:
        seen = (q >= 0) & (k >= 0)
        if causal:
            seen = seen & (k <= q)
        if window is not None:
            seen = seen & (q - k < window)
        if chunk is not None:
            seen = seen & (q // chunk == k // chunk)
        return seen

    return mask


@pytest.mark.parametrize(
    ("causal", "window", "chunk"),
    [(c, w, None) for c, w in product((True, False), (None, 1, 3, 20))] + [(True, None, 4)],
)
def test_statements_are_found(causal: bool, window: int | None, chunk: int | None) -> None:
    assert said(_allowed(causal, window, chunk)) == (None, causal, window, chunk)


@pytest.mark.parametrize("hidden", [float("-inf"), torch.finfo(torch.float32).min, -10_000.0])
def test_additive_masks_are_read(hidden: float) -> None:
    allowed = _allowed(True, 5, None)

    def mask(q: Tensor, k: Tensor) -> Tensor:
        return torch.where(allowed(q, k), 0.0, hidden)

    assert said(mask) == (None, True, 5, None)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(lambda q, k: (k - q).float() * 0.5, id="bias"),
        pytest.param(lambda q, k: (k <= q) | (k < 3), id="prefix"),
        pytest.param(lambda q, k: (k <= q) | (q >= 40), id="causal for 40 tokens only"),
        pytest.param(lambda q, k: (k <= q) & ((q - k) % 2 == 0), id="dilated"),
        pytest.param(lambda q, k: (k <= q) & (q - k < 100_000), id="longer than can be tried"),
        pytest.param(lambda q, k: torch.where(k <= q, 0.0, -5.0), id="hidden by little"),
    ],
)
def test_other_masks_stay_tensors_with_the_reason(mask: Mask) -> None:
    program = canonical(Attending(mask))
    journal = Journal()
    for p in _attention_passes():
        p(program, journal)
    node = next(n for _, n in program.nodes() if op_name(n) == "effc.attention.default")
    assert node.args[3] is not None
    assert any(miss.rule == "recognize-mask" and "mask" in miss.reason for miss in journal.misses)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_what_is_said_is_what_is_seen(length: int) -> None:
    for causal, window, chunk in product((True, False), (None, 2, 4), (None, 3)):
        query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
        assert torch.equal(
            Statement(causal, window, chunk).visible(length),
            _allowed(causal, window, chunk)(query, key).expand(length, length),
        )


def test_a_statement_is_read_back_from_what_is_seen() -> None:
    options = [(c, w, None) for c, w in product((True, False), (None, 1, 2, 7))]
    for statement in [Statement(*o) for o in options] + [Statement(True, None, 4)]:
        assert _statement(statement.visible(16)) == statement


def _row(offset: int) -> Callable[[Tensor], Tensor]:
    return lambda ids: torch.arange(ids.shape[1])[None] + offset


def _counted_ones(ids: Tensor) -> Tensor:
    return torch.ones_like(ids).cumsum(1) - 1


def _written_for_one_row(ids: Tensor) -> Tensor:
    """As exporters unroll a batch of one: the number of rows stands in the shape."""
    return torch.arange(ids.shape[1])[None, :, None].expand(1, -1, 1).reshape(1, ids.shape[1])


@pytest.mark.parametrize(
    "counted",
    [_row(0), _row(2), _counted_ones, _written_for_one_row],
    ids=["row", "+2", "cumsum", "one row"],
)
def test_counted_positions_become_the_input(counted: Callable[[Tensor], Tensor]) -> None:
    module = Attending(lambda q, k: k <= q, counted).eval()
    example = (torch.zeros(2, 7, dtype=torch.long), torch.arange(7).expand(2, 7).contiguous())
    fast = effc.optimize(module, example_inputs=example)
    ids = torch.randint(0, 32, (2, 5), generator=torch.Generator().manual_seed(1))
    expected = ids
    with torch.no_grad():
        for _ in range(6):
            logits = module(expected, torch.zeros_like(expected))
            expected = torch.cat([expected, logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(fast.generate(ids, max_new_tokens=6), expected)


def test_one_row_for_all_sequences_is_left_alone() -> None:
    class Outer(nn.Module):
        """Positions meet one another, not the tokens of their own sequence."""

        def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
            row = torch.arange(ids.shape[1])[None]
            return F.one_hot(ids, 32).float() + (row - row.transpose(0, 1)).sum(1)[None, :, None]

    program = canonical(Outer())
    journal = Journal()
    result = FindPositions()(program, journal)
    assert result.count("applied") == 0
    assert any("one row of positions for all sequences" in m.reason for m in journal.misses)
