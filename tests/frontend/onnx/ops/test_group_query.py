"""GroupQueryAttention and RotaryEmbedding as ONNX Runtime computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from effc.diagnostics import ModelError
from effc.frontend.onnx.builder import Builder, Decoder
from effc.frontend.onnx.importer import declare_inputs, finish, import_model
from effc.frontend.onnx.translate import Translator
from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.runtime.executable import Executable
from tests.frontend.onnx.ops.runtime import agree, both, model_of

H, H_KV, D = 4, 2, 16
POSITIONS = 64


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rotation(width: int = D) -> dict[str, np.ndarray]:
    angles = normal(POSITIONS, width // 2, seed=9)
    return {"cos": np.cos(angles), "sin": np.sin(angles)}


def sample(
    batch: int,
    new: int,
    past: int | None,
    *,
    last: list[int] | None = None,
    total: int | None = None,
    packed: bool = True,
    width: int = D,
    **optional: np.ndarray,
) -> dict[str, np.ndarray | None]:
    """Inputs in the operator's order.

    Args:
        batch, new: B and T.
        past: slots of the past; None leaves it out.
        last: `seqlens_k`, index of each sequence's last token.
        total: the longest sequence, if not what `last` says.
        packed: q, k and v in one tensor.
        width: D.
        optional: further inputs.
    """
    lengths = np.array(last or [(past or 0) + new - 1] * batch, dtype=np.int32)
    widths = [H * width, H_KV * width, H_KV * width]
    projected = normal(batch, new, sum(widths), seed=1)
    q, k, v = np.split(projected, np.cumsum(widths)[:-1], axis=-1)
    inputs: dict[str, np.ndarray | None] = {"q": projected, "k": None, "v": None}
    if not packed:
        inputs = {"q": q.copy(), "k": k.copy(), "v": v.copy()}
    slots = None if past is None else (batch, H_KV, past, width)
    inputs["past_key"] = None if slots is None else normal(*slots, seed=2)
    inputs["past_value"] = None if slots is None else normal(*slots, seed=3)
    inputs["seqlens_k"] = lengths
    inputs["total"] = np.array(total or lengths.max() + 1, dtype=np.int32)
    names = ("cos", "sin", "position_ids", "attention_bias", "head_sink")
    return inputs | {name: optional.get(name) for name in names}


def check(
    inputs: dict[str, np.ndarray | None], open_sizes: tuple[int, ...], **attributes: Any
) -> None:
    """Compare where results mean something: for real tokens, and in slots that hold one."""
    options: dict[str, Any] = {"open_sizes": open_sizes, "constants": ("cos", "sin")}
    options["attributes"] = {"num_heads": H, "kv_num_heads": H_KV, **attributes}
    pairs = both("GroupQueryAttention", inputs, (0, 1, 2), **options)
    lengths, new = inputs["seqlens_k"] + 1, inputs["q"].shape[1]
    first = np.maximum(lengths - new, 0)
    for index, (found, expected) in enumerate(pairs):
        for b, length in enumerate(lengths):
            of_tokens, of_slots = (b, slice(length - first[b])), (b, slice(None), slice(length))
            real = of_slots if index else of_tokens
            np.testing.assert_allclose(found[real], expected[real], rtol=2e-5, atol=2e-6)


SITUATIONS = {
    "prompt": {"batch": 2, "new": 5, "past": 0},
    "prompt without past inputs": {"batch": 2, "new": 5, "past": None},
    "prompt, padded on the right": {"batch": 2, "new": 5, "past": 0, "last": [4, 2]},
    "one token": {"batch": 2, "new": 1, "past": 6},
    "one token, ragged": {"batch": 3, "new": 1, "past": 6, "last": [6, 3, 0]},
    "several tokens": {"batch": 1, "new": 3, "past": 6},
    "prompt in a buffer": {"batch": 2, "new": 3, "past": 11, "last": [2, 2], "total": 3},
    "one token in a buffer": {"batch": 2, "new": 1, "past": 11, "last": [6, 3], "total": 7},
    "several tokens in a buffer": {"batch": 1, "new": 3, "past": 11, "last": [6], "total": 7},
}  # fmt: skip
OPEN = (2, 3, 5, 6, 7, 11)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("interleaved", (0, 1))
@pytest.mark.parametrize("packed", (True, False))
def test_rotated(situation: str, interleaved: int, packed: bool) -> None:
    inputs = sample(**SITUATIONS[situation], packed=packed, **rotation())
    check(inputs, OPEN, do_rotary=1, rotary_interleaved=interleaved)


ATTRIBUTES = {
    "plain": {},
    "window 1": {"local_window_size": 1},
    "window 3": {"local_window_size": 3},
    "softcap": {"softcap": 1.5},
    "scale": {"scale": 0.3},
    "smooth softmax": {"smooth_softmax": 1},
    "all tokens see all": {"causal": 0},
    "everything": {"local_window_size": 3, "softcap": 1.5, "scale": 0.3, "smooth_softmax": 1},
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_masks_and_scores(situation: str, attributes: str) -> None:
    check(sample(**SITUATIONS[situation]), OPEN, **ATTRIBUTES[attributes])


@pytest.mark.parametrize("situation", SITUATIONS)
def test_sinks(situation: str) -> None:
    check(sample(**SITUATIONS[situation], head_sink=normal(H, seed=4)), OPEN)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("heads", (1, H))
def test_bias(situation: str, heads: int) -> None:
    size = SITUATIONS[situation]
    total = size.get("total") or max(size.get("last", [(size["past"] or 0) + size["new"] - 1])) + 1
    bias = normal(size["batch"], heads, size["new"], total, seed=4)
    check(sample(**size, attention_bias=bias), OPEN, softcap=2.0)


def test_some_coordinates_rotated() -> None:
    check(sample(2, 5, 0, width=32, **rotation(16)), OPEN, do_rotary=1)


@pytest.mark.parametrize(
    ("new", "past", "positions"),
    ((5, 0, [[7, 3, 4, 1, 9]]), (1, 6, [[7]]), (3, 6, [[7, 1, 2]])),
)
def test_positions_are_taken_as_onnxruntime_takes_them(
    new: int, past: int, positions: list[list[int]]
) -> None:
    inputs = sample(1, new, past, position_ids=np.array(positions), **rotation())
    check(inputs, OPEN, do_rotary=1)


@pytest.mark.parametrize(
    ("attributes", "outputs", "said"),
    (
        ({"k_quant_type": "PER_TENSOR"}, (0, 1, 2), "k_quant_type"),
        ({"sliding_window_cache": 1}, (0, 1, 2), "sliding_window_cache"),
        ({"qk_output": 1}, (0, 1, 2, 3), "qk_output"),
        ({"unheard_of": 1}, (0,), "unheard_of"),
    ),
)
def test_other_caches_are_refused(
    attributes: dict[str, Any], outputs: tuple[int, ...], said: str
) -> None:
    attributes |= {"num_heads": H, "kv_num_heads": H_KV}
    model = model_of("GroupQueryAttention", sample(2, 1, 6), outputs, attributes=attributes)
    with pytest.raises(ModelError, match=f"E0307.*{said}"):
        import_model(onnx_ir.from_proto(model), "test")


def specialized(model: onnx.ModelProto) -> Program:
    """The program without a past: all tokens real, positions an input."""
    g, source = Builder(), onnx_ir.from_proto(model)
    specs, nodes = declare_inputs(g, source.graph.inputs)
    g.decoder = Decoder(positions=nodes["position_ids"])
    outputs = Translator(source, g).run(nodes)
    return finish(g, specs, {f"out_{i}": value for i, value in enumerate(outputs)}, "test")


@pytest.mark.parametrize("interleaved", (0, 1))
def test_decoder_without_a_past_is_one_attention(interleaved: int) -> None:
    positions = np.broadcast_to(np.arange(5), (2, 5)).copy()
    inputs = sample(2, 5, 0, position_ids=positions, **rotation())
    attributes = {"num_heads": H, "kv_num_heads": H_KV, "do_rotary": 1, "local_window_size": 3}
    model = model_of(
        "GroupQueryAttention",
        inputs,
        (0, 1, 2),
        open_sizes=(2, 5),
        constants=("cos", "sin"),
        attributes=attributes | {"rotary_interleaved": interleaved},
    )
    whole = import_model(onnx_ir.from_proto(model), "test")
    short = specialized(model)
    given = {v.name: torch.from_numpy(np.asarray(inputs[v.name])) for v in model.graph.input}
    results = [Executable(p, device="cpu", kernels="reference") for p in (short, whole)]
    found, expected = (list(run("forward", given).values()) for run in results)
    for mine, same in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, same, rtol=1e-6, atol=1e-6)

    calls = [node for _, node in short.nodes() if op_name(node).startswith("effc.")]
    names = [op_name(node) for node in calls]
    assert names == ["effc.rope.default"] * 2 + ["effc.attention.default"]
    mask, causal, window = calls[-1].args[3:6]
    assert (mask, causal, window) == (None, True, 3)
    assert {a.name for a in calls[0].args[1:3]} == {a.name for a in calls[1].args[1:3]}


@pytest.mark.parametrize("interleaved", (0, 1))
@pytest.mark.parametrize(
    ("shape", "positions", "width", "attributes"),
    (
        ((2, 5, 32), [3], 8, {}),
        ((2, 5, 32), [[5, 0, 1, 9, 2], [4, 4, 3, 63, 1]], 8, {"scale": 2.0}),
        ((2, 4, 5, 8), [[5, 0, 1, 9, 2], [4, 4, 3, 63, 1]], 8, {}),
        ((2, 5, 32), [3], 4, {"num_heads": 4, "rotary_embedding_dim": 4}),
    ),
)
def test_rotary_embedding(
    shape: tuple[int, ...],
    positions: list[Any],
    width: int,
    attributes: dict[str, Any],
    interleaved: int,
) -> None:
    inputs = {"x": normal(*shape), "positions": np.array(positions), **rotation(width)}
    attributes |= {"interleaved": interleaved}
    options = {"open_sizes": (2, 5), "constants": ("cos", "sin"), "attributes": attributes}
    agree("RotaryEmbedding", inputs, **options)
