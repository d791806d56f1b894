"""Operators without operators: each decomposition against the reference, on random arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from effc.export.decompositions import decompositions
from effc.export.explicit_views import segments
from effc.kernels.packing.group_affine import BITS, GroupAffine
from effc.kernels.registry import LIBRARY

OPS = torch.ops.effc


def close(name: str, *arguments: Any) -> None:
    """Equal to the reference up to the order of sums; shapes and types exactly."""
    op = getattr(OPS, name).default
    expected = op(*arguments)
    found = decompositions()[op](*arguments)
    if isinstance(expected, list):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        return
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_every_functional_operator_has_one() -> None:
    defined = {str(op).partition("(")[0] for op in LIBRARY._op_defs}
    covered = {f"effc::{op._schema.name.partition('::')[2]}" for op in decompositions()}
    assert defined - covered == {"effc::cache_write_"}


def packed(layout: GroupAffine, *shape: int) -> tuple[Tensor, Tensor, Tensor | None]:
    planes = layout.pack(torch.randn(shape))
    return planes["codes"], planes["scale"], planes.get("zero")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("group", "symmetric"), ((16, True), (16, False), (None, False)))
@pytest.mark.parametrize("activations", ("source", "int8"))
def test_packed_weights(bits: int, group: int | None, symmetric: bool, activations: str) -> None:
    """A width that no group divides."""
    width, layout = 40, GroupAffine(bits, group, symmetric)
    form = (bits, group or width, width)
    planes = packed(layout, 24, width)
    x, bias = torch.randn(2, 3, width), torch.randn(24)
    close("quantized_linear", x, *planes, bias, *form, activations)
    ids = torch.randint(0, 24, (2, 5))
    close("quantized_embedding", ids, *planes, *form, torch.float16)
    experts, chosen = packed(layout, 3, 24, width), torch.tensor([2, 0, 2, 1])
    rows, biases = torch.randn(4, width), torch.randn(3, 24)
    close("quantized_grouped_linear", rows, *experts, chosen, biases, *form, activations)


@pytest.mark.parametrize("transposed", (True, False))
def test_grouped_linear(transposed: bool) -> None:
    weight = torch.randn(3, 8, 6) if transposed else torch.randn(3, 6, 8)
    ids = torch.tensor([1, 1, 0, 2])
    close("grouped_linear", torch.randn(4, 8), weight, ids, torch.randn(3, 6), transposed)


@pytest.mark.parametrize("form", ("fp32", "bf16", "int8"))
def test_cache_write(form: str) -> None:
    """Tokens without a slot are written nowhere, not even in the last place."""
    from effc.kernels.paged.formats import page_format

    pages = page_format(form).encode(torch.randn(4, 2, 8, 6))
    slots = torch.tensor([[[9, 3, -1]], [[-1, 31, 16]]])
    close("cache_write", pages, torch.randn(2, 2, 3, 6), slots, form)


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize(("window", "chunk"), ((None, None), (5, None), (None, 4)))
@pytest.mark.parametrize("indexed", (True, False))
def test_attend(causal: bool, window: int | None, chunk: int | None, indexed: bool) -> None:
    """Pages out of order, missing pages, ragged rows, a tree, sinks and a soft cap."""
    P, T = 8, 3
    keys, values = torch.randn(6, 2, P, 6), torch.randn(6, 2, P, 4)
    table = torch.tensor([[[4, 1, -1]], [[2, 0, 5]]], dtype=torch.int32)
    lengths, new_len = torch.tensor([9, 18]), torch.tensor([3, 2])
    index = None
    if indexed:
        index = torch.full((6, P), -1, dtype=torch.int32)
        index[[4, 1]] = torch.arange(2 * P, dtype=torch.int32).view(2, P)
        index[[2, 0, 5]] = torch.arange(3 * P, dtype=torch.int32).view(3, P)
    token = OPS.token_index(lengths, new_len, torch.zeros(2, T, dtype=torch.int64))
    tree = torch.rand(2, T, T) > 0.4
    for mask, cap, sinks in ((None, None, None), (tree, 2.0, torch.randn(4))):
        close(
            "attend", torch.randn(2, 4, T, 6), [keys], [values], "fp32", "fp32", table, index,
            token, lengths, mask, causal, window, chunk, 0.4, cap, sinks,
        )  # fmt: skip


def test_small_operators() -> None:
    lengths, new_len = torch.tensor([4, 0]), torch.tensor([2, 3])
    close("token_index", lengths, new_len, torch.zeros(2, 3, dtype=torch.int64))
    close("select_rows", torch.randn(2, 5, 7), torch.tensor([[4, 4], [0, 2]]))
    close("rms_norm", torch.randn(2, 8), torch.randn(8), 1e-5, True)
    close("gated_activation", torch.randn(2, 8), torch.randn(2, 8), "silu")
    close("rope", torch.randn(1, 2, 3, 8), torch.randn(3, 8), torch.randn(3, 8), "half")
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 5, 8)
    close("attention", q, k, k, None, True, None, None, 0.3, None, None)


def steps(before: Any, after: Any) -> list[tuple[list[int], list[int]]] | None:
    found = segments(before, after)
    return found if found is None else [(list(s.inputs), list(s.outputs)) for s in found]


def test_how_sizes_become_others() -> None:
    env = ShapeEnv()
    B, T = (env.create_unbacked_symint() for _ in range(2))
    assert steps((B, T, 6), (B * T, 6)) == [([0, 1], [0]), ([2], [1])]
    assert steps((B * T, 6), (B, T, 2, 3)) == [([0], [0, 1]), ([1], [2, 3])]
    assert steps((B, 6, 4), (B, 4, 6)) == [([0], [0]), ([1, 2], [1, 2])]
    assert steps((1, B, 1), (B,)) == [([0], []), ([1], [0]), ([2], [])]
    assert steps((B,), (B, 1)) == [([0], [0]), ([], [1])]
    assert steps((B, T), (T, B)) == [([0, 1], [0, 1])]
    assert steps((B, 4), (T, 4)) is None
