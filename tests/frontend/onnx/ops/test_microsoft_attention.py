"""MultiHeadAttention and Attention as ONNX Runtime computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest

from effc.diagnostics import ModelError
from effc.frontend.onnx.importer import import_model
from tests.frontend.onnx.ops.runtime import agree, model_of, ours, theirs
from tests.frontend.onnx.ops.test_group_query import normal

B, T, S, P, H, D = 2, 5, 7, 6, 4, 8
W = H * D
OPEN = (B, T, S, P, P + T)

Inputs = dict[str, np.ndarray | None]


def rows(*lengths: int, total: int) -> np.ndarray:
    """A mask [B, total] with so many ones at the start of each row."""
    return np.array([[1] * n + [0] * (total - n) for n in lengths], dtype=np.int32)


def qkv(keys: int = S, value_width: int = W) -> Inputs:
    q, k = normal(B, T, W, seed=1), normal(B, keys, W, seed=2)
    return {"q": q, "k": k, "v": normal(B, keys, value_width, seed=3)}


def multi_head(inputs: Inputs, outputs: tuple[int, ...] = (0,), **attributes: Any) -> None:
    options = {"open_sizes": OPEN, "attributes": {"num_heads": H, **attributes}}
    agree("MultiHeadAttention", inputs, outputs, **options)


def with_past(**optional: np.ndarray) -> Inputs:
    names = ("bias", "mask", "attention_bias")
    inputs = qkv(T) | {name: optional.get(name) for name in names}
    past = {n: normal(B, H, P, D, seed=s) for s, n in enumerate(("past_key", "past_value"), 5)}
    return inputs | past


def test_keys_of_another_sequence() -> None:
    multi_head(qkv(), (0, 1, 2))


def test_values_of_another_width() -> None:
    multi_head(qkv(value_width=3 * H), scale=0.3)


def test_bias_of_the_projection() -> None:
    multi_head(qkv() | {"bias": normal(3 * W, seed=4)})


def test_keys_with_heads_have_their_bias() -> None:
    heads = {"k": normal(B, H, S, D, seed=2), "v": normal(B, H, S, D, seed=3)}
    multi_head(qkv() | heads)
    multi_head(qkv() | heads | {"bias": normal(3 * W, seed=4)})


MASKS = {
    "rows": rows(S, 4, total=S),
    "lengths": np.array([S, 4], dtype=np.int32),
    "per query": np.tril(np.ones((B, T, S), dtype=np.int32), 2),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("value", (-10000.0, -3.0))
def test_padding(mask: str, value: float) -> None:
    multi_head(qkv() | {"bias": None, "mask": MASKS[mask]}, mask_filter_value=value)


@pytest.mark.parametrize("shape", ((1, 1, T, S), (B, H, T, S), (B, 1, T, S)))
def test_bias_of_the_scores(shape: tuple[int, ...]) -> None:
    bias = normal(*shape, seed=4)
    multi_head(qkv() | {"bias": None, "mask": None, "attention_bias": bias})
    multi_head(qkv() | {"bias": None, "mask": MASKS["rows"], "attention_bias": bias})


@pytest.mark.parametrize("causal", (0, 1))
def test_past(causal: int) -> None:
    multi_head(with_past(bias=normal(3 * W, seed=4)), (0, 1, 2), unidirectional=causal)
    mask = rows(T + P, P + 2, total=T + P)[:, ::-1].copy()
    multi_head(with_past(mask=mask), (0, 1, 2), unidirectional=causal)


def test_packed_forms_are_the_plain_one() -> None:
    """ONNX Runtime has them on GPUs only, so they are compared with what it computes unpacked."""
    plain = qkv(T)
    attributes = {"num_heads": H}
    expected = theirs(model_of("MultiHeadAttention", plain, attributes=attributes), plain)[0]
    q, k, v = (plain[name].reshape(B, T, H, D) for name in "qkv")
    for packed in (
        {"q": np.stack([q, k, v], 3)},
        {"q": plain["q"], "k": np.stack([k, v], 3)},
        {"q": np.concatenate([plain["q"], plain["k"], plain["v"]], -1)},
    ):
        model = model_of("MultiHeadAttention", packed, open_sizes=(T,), attributes=attributes)
        np.testing.assert_allclose(ours(model, packed)[0], expected, rtol=2e-5, atol=2e-6)


def projection(
    mask: np.ndarray | None = None, width: int = 3 * W, **optional: np.ndarray
) -> Inputs:
    x, weights = normal(B, T, 24, seed=1), normal(24, width, seed=2) / 4
    given: Inputs = {"x": x, "weights": weights, "bias": normal(width, seed=3), "mask": mask}
    return given | {name: optional.get(name) for name in ("past", "attention_bias")}


def self_attention(inputs: Inputs, outputs: tuple[int, ...] = (0, 1), **attributes: Any) -> None:
    options: dict[str, Any] = {"constants": ("weights", "bias"), "open_sizes": OPEN}
    mask = inputs["mask"]
    if mask is not None and mask.shape == (2 * B,):
        options["open_sizes"] = (T, P)
    agree("Attention", inputs, outputs, **options, attributes={"num_heads": H, **attributes})


SELF_MASKS = {
    "none": None,
    "rows": rows(T, 3, total=T),
    "lengths": np.array([T, 3], dtype=np.int32),
    "ends and starts": np.array([T, 4, 0, 2], dtype=np.int32),
    "per query": np.tril(np.ones((B, T, T), dtype=np.int32), 1),
}


# With starts, the first causal queries would see hidden keys only, which has no meaning.
CHOICES = [(mask, causal) for mask in SELF_MASKS for causal in (0, 1)]
CHOICES.remove(("ends and starts", 1))


@pytest.mark.parametrize(("mask", "causal"), CHOICES)
def test_attention_with_its_projection(mask: str, causal: int) -> None:
    self_attention(projection(SELF_MASKS[mask]), unidirectional=causal)


def test_attention_with_a_past() -> None:
    past = normal(2, B, H, P, D, seed=4)
    self_attention(projection(rows(T + P, P + 2, total=T + P), past=past), unidirectional=1)


def test_attention_with_a_bias_of_its_scores() -> None:
    self_attention(projection(attention_bias=normal(B, H, T, T, seed=4)))


def test_attention_with_values_of_another_width() -> None:
    widths = [W, W, 3 * H]
    self_attention(projection(width=sum(widths)), (0,), qkv_hidden_sizes=widths)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "said"),
    (
        ("Attention", projection(), {"do_rotary": 1}, "do_rotary"),
        ("Attention", projection(np.ones((B, 1, T, T), np.int32)), {}, "a mask of rank 4"),
        (
            "MultiHeadAttention",
            qkv() | {"k": normal(B, H, S, D), "v": normal(B, H, S, D)},
            {"unidirectional": 1},
            "keys of another sequence",
        ),
        (
            "MultiHeadAttention",
            with_past() | {"past_sequence_length": np.array([P], np.int32)},
            {},
            "share a buffer",
        ),
    ),
)
def test_what_has_no_translation_is_refused(
    op_type: str, inputs: Inputs, attributes: dict[str, Any], said: str
) -> None:
    model = model_of(op_type, inputs, attributes={"num_heads": H, **attributes})
    with pytest.raises(ModelError, match=f"E0307.*{said}"):
        import_model(onnx_ir.from_proto(model), "test")
