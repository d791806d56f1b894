"""The mask prober reads transformers' own mask functions, and refuses what it cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    blockwise_overlay,
    causal_mask_function,
    chunked_causal_mask_function,
    chunked_overlay,
    or_masks,
    padding_mask_function,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
    sliding_window_overlay,
)

from effc.diagnostics import ModelError
from effc.frontend.huggingface.interfaces import attention, dense_mask
from effc.frontend.huggingface.interfaces import mask as make_mask
from effc.frontend.huggingface.masks import MaskSpec, UnknownMask, probe

LENGTH = 2 * 300 + 3
Mask = Callable[[Any, Any, Any, Any], Any]


def _none(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key < 0) & (query < 0)


def _no_padding() -> torch.Tensor:
    return torch.zeros(1, dtype=torch.long)


def test_a_causal_mask_is_causal() -> None:
    assert probe(causal_mask_function, LENGTH, "here") == MaskSpec(causal=True)


def test_a_bidirectional_mask_is_full() -> None:
    assert probe(bidirectional_mask_function, LENGTH, "here") == MaskSpec(causal=False)


@pytest.mark.parametrize("window", [1, 2, 3, 24, 63, 64, 65, 299, 300])
def test_the_width_of_a_window_is_found(window: int) -> None:
    mask = sliding_window_causal_mask_function(window)
    assert probe(mask, LENGTH, "here") == MaskSpec(causal=True, window=window)


@pytest.mark.parametrize("chunk", [2, 3, 8, 63, 64, 65, 300])
def test_the_length_of_chunks_is_found(chunk: int) -> None:
    mask = chunked_causal_mask_function(chunk, _no_padding())
    assert probe(mask, LENGTH, "here") == MaskSpec(causal=True, chunk=chunk)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (and_masks(causal_mask_function, sliding_window_overlay(9)), MaskSpec(True, window=9)),
        (
            and_masks(sliding_window_overlay(30), sliding_window_causal_mask_function(9)),
            MaskSpec(True, window=9),
        ),
        (and_masks(causal_mask_function, bidirectional_mask_function), MaskSpec(True)),
        (or_masks(causal_mask_function, sliding_window_causal_mask_function(9)), MaskSpec(True)),
        (or_masks(causal_mask_function, bidirectional_mask_function), MaskSpec(False)),
        (or_masks(causal_mask_function, _none), MaskSpec(True)),
        (sliding_window_overlay(9), MaskSpec(False, window=9)),
        (chunked_overlay(8, _no_padding()), MaskSpec(False, chunk=8)),
    ],
)
def test_combinations_mean_what_they_say(mask: Mask, expected: MaskSpec) -> None:
    assert probe(mask, LENGTH, "here") == expected


def _every_third(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & (key % 3 == query % 3)


def _dilated_after_500(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & ((key < 500) | (key % 2 == 0) | (key == query))


def _strictly_before(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return key < query


def _growing_window(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & (key >= query // 2)


def _prefix(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key <= query) | (key < 4)


def _sinks_and_window(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & ((query - key < 9) | (key < 4))


def _window_of_the_second_head(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & ((head == 0) | (query - key < 9))


@pytest.mark.parametrize(
    "mask",
    [
        _window_of_the_second_head,
        _none,
        _every_third,
        _dilated_after_500,
        _strictly_before,
        _growing_window,
        _prefix,
        _sinks_and_window,
        sliding_window_bidirectional_mask_function(9),
        and_masks(chunked_causal_mask_function(8, _no_padding()), sliding_window_overlay(3)),
        or_masks(sliding_window_causal_mask_function(9), chunked_overlay(8, _no_padding())),
        chunked_causal_mask_function(8, torch.tensor([3])),
        padding_mask_function(torch.arange(LENGTH)[None] % 7 > 0),
    ],
)
def test_other_masks_are_refused(mask: Mask) -> None:
    with pytest.raises(ModelError, match="neither causal, full, sliding nor chunked") as caught:
        probe(mask, LENGTH, "here")
    assert caught.value.code == "E0308"


def test_a_mask_that_cannot_be_evaluated_is_refused() -> None:
    mask = and_masks(causal_mask_function, blockwise_overlay(torch.zeros(1, 5, dtype=torch.long)))
    with pytest.raises(ModelError, match="cannot be evaluated"):
        probe(mask, LENGTH, "here")


class _Traced(torch.nn.Module):
    """Shows a tensor to a visitor while it is being traced."""

    def __init__(self, visit: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.visit = visit

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.visit((ids * 0).sum(dim=1))
        return ids + 1


def _trace(visit: Callable[[torch.Tensor], None]) -> None:
    sizes = {"ids": {0: torch.export.Dim("B"), 1: torch.export.Dim("T")}}
    example = {"ids": torch.zeros(2, 7, dtype=torch.long)}
    torch.export.export(_Traced(visit), (), example, dynamic_shapes=sizes, strict=False)


def test_traced_padding_counts_as_none() -> None:
    found: list[MaskSpec] = []
    _trace(lambda t: found.append(probe(chunked_causal_mask_function(8, t), LENGTH, "here")))
    assert set(found) == {MaskSpec(causal=True, chunk=8)}


def test_a_mask_that_depends_on_the_input_is_refused() -> None:
    def visit(traced: torch.Tensor) -> None:
        probe(and_masks(causal_mask_function, padding_mask_function(traced)), LENGTH, "here")

    with pytest.raises(ModelError, match="depends on the input \\(through 'padding_mask'\\)"):
        _trace(visit)


class _Attention(torch.nn.Module):
    """An attention module of the library, as far as the interface looks at it."""

    layer_idx = 3
    is_causal = True

    def __call__(self, mask: Any) -> torch.Tensor:
        x = torch.ones(1, 1, 5, 4)
        return attention(self, x, x, x, mask, scaling=1.0)[0]


def test_a_mask_that_no_layer_uses_may_be_unknown() -> None:
    unknown = make_mask(mask_function=_prefix)
    assert isinstance(unknown, UnknownMask)
    with pytest.raises(ModelError, match="neither causal, full, sliding nor chunked"):
        _Attention()(unknown)


@pytest.mark.parametrize("compute", [lambda m: torch.ones(1) + m, lambda m: m[:1], lambda m: m.to])
@pytest.mark.parametrize("dense", [False, True])
def test_a_model_that_computes_with_its_mask_is_refused(
    compute: Callable[[Any], Any], dense: bool
) -> None:
    mask = make_mask(mask_function=causal_mask_function)
    if dense:
        mask = _dense(bidirectional_mask_function, torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ModelError, match="computes with its attention mask"):
        compute(mask)


def _dense(function: Mask, padding: torch.Tensor) -> Any:
    batch, length = padding.shape
    return dense_mask(
        batch_size=batch,
        q_length=length,
        kv_length=length,
        mask_function=function,
        attention_mask=padding,
        allow_is_bidirectional_skip=True,
    )


@pytest.mark.parametrize(
    "function",
    [
        bidirectional_mask_function,
        causal_mask_function,
        sliding_window_bidirectional_mask_function(2),
        _prefix,
    ],
)
def test_an_encoders_mask_is_the_librarys_with_its_padding(function: Mask) -> None:
    padding = torch.ones(3, 7, dtype=torch.bool)
    padding[1, 4:], padding[2, :6] = False, False
    expected = torch.empty(3, 1, 7, 7, dtype=torch.bool)
    for b, q, k in torch.cartesian_prod(torch.arange(3), torch.arange(7), torch.arange(7)):
        expected[b, 0, q, k] = function(b, torch.tensor(0), q, k) & padding[b, k]
    assert torch.equal(_dense(function, padding).visible, expected)


def test_attention_hides_what_an_encoders_mask_hides() -> None:
    padding = torch.tensor([[True, True, True, False, False]])
    x = torch.randn(1, 2, 5, 4)
    out, _ = attention(_Attention(), x, x, x, _dense(bidirectional_mask_function, padding))
    short = x[:, :, :3]
    expected = torch.nn.functional.scaled_dot_product_attention(x, short, short)
    torch.testing.assert_close(out, expected.transpose(1, 2))


def test_causal_attention_without_a_mask_is_refused() -> None:
    """Eager attention would see the future, fused attention would not."""
    with pytest.raises(ModelError, match="without a mask"):
        _Attention()(None)


def test_unknown_arguments_of_attention_are_refused() -> None:
    x = torch.ones(1, 1, 5, 4)
    with pytest.raises(ModelError, match="does not know: position_bias"):
        attention(_Attention(), x, x, x, MaskSpec(True), position_bias=x)
