"""Norms, activations and products that ONNX Runtime has fused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest

from effc.diagnostics import ModelError
from effc.frontend.onnx.importer import import_model
from tests.frontend.onnx.ops.runtime import agree, model_of, ours
from tests.frontend.onnx.ops.test_group_query import normal

B, T, W = 2, 5, 32
OPEN = (B, T)


def x(seed: int = 0, factor: float = 1.0) -> np.ndarray:
    return factor * normal(B, T, W, seed=seed)


def vector(seed: int) -> np.ndarray:
    return normal(W, seed=seed)


def fused(op_type: str, outputs: tuple[int, ...] = (0,), **given: Any) -> None:
    """Arrays are inputs, everything else attributes."""
    inputs = {n: v for n, v in given.items() if v is None or isinstance(v, np.ndarray)}
    attributes = {n: v for n, v in given.items() if n not in inputs}
    agree(op_type, inputs, outputs, open_sizes=OPEN, attributes=attributes)


def test_skip_layer_normalization() -> None:
    op, norm = "SkipLayerNormalization", {"gamma": vector(2), "epsilon": 1e-5}
    fused(op, (0, 3), x=x(), skip=x(1), **norm, beta=vector(3), bias=vector(4))
    fused(op, (0, 3), x=x(), skip=x(1), **norm, beta=None, bias=vector(4))
    fused(op, x=x(), skip=x(1)[0], **norm)
    fused(op, x=x(), skip=x(1)[:1], **norm, beta=vector(3))


def test_skip_simplified_layer_normalization() -> None:
    op = "SkipSimplifiedLayerNormalization"
    fused(op, (0, 3), x=x(), skip=x(1), gamma=vector(2), bias=vector(4), epsilon=1e-5)
    fused(op, (0, 3), x=x(), skip=x(1), gamma=vector(2))
    fused(op, x=x()[0], skip=x(1)[0], gamma=vector(2))


def test_statistics_are_refused() -> None:
    inputs = {"x": x(), "skip": x(1), "gamma": vector(2)}
    model = model_of("SkipLayerNormalization", inputs, (0, 1))
    with pytest.raises(ModelError, match="E0307.*mean and deviation"):
        import_model(onnx_ir.from_proto(model), "test")


@pytest.mark.parametrize("axis", (-1, 2))
def test_simplified_layer_normalization(axis: int) -> None:
    inputs = {"x": x(), "gamma": vector(2)}
    attributes = {"axis": axis, "epsilon": 1e-5, "stash_type": 1}
    options: dict[str, Any] = {"domain": "", "open_sizes": OPEN, "attributes": attributes}
    agree("SimplifiedLayerNormalization", inputs, (0, 1), **options)


def tables(segments: bool) -> dict[str, np.ndarray | None]:
    return {
        "word": normal(9, W, seed=1),
        "position": normal(12, W, seed=2),
        "segment": normal(2, W, seed=3) if segments else None,
        "gamma": vector(4),
        "beta": vector(5),
    }


@pytest.mark.parametrize("mask", (None, np.array([[1] * T, [1, 1, 0, 0, 0]], dtype=np.int32)))
@pytest.mark.parametrize("segments", (True, False))
@pytest.mark.parametrize("positions", (True, False))
def test_embed_layer_normalization(
    mask: np.ndarray | None, segments: bool, positions: bool
) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 9, (B, T)).astype(np.int32)
    of_segment = rng.integers(0, 2, (B, T)).astype(np.int32) if segments else None
    at = rng.integers(0, 12, (B, T)).astype(np.int32) if positions else None
    inputs = {"ids": ids, "segments": of_segment} | tables(segments)
    inputs |= {"mask": mask, "position_ids": at}
    options = {"constants": tuple(tables(segments)), "open_sizes": OPEN}
    agree("EmbedLayerNormalization", inputs, (0, 1, 2) if segments else (0, 1), **options)


def test_gelus() -> None:
    for op_type in ("Gelu", "FastGelu", "QuickGelu"):
        fused(op_type, x=x(factor=3.0))
    for op_type in ("FastGelu", "BiasGelu"):
        fused(op_type, x=x(factor=3.0), bias=vector(1))
    for alpha in (1.0, 0.5):
        fused("QuickGelu", x=x(factor=3.0), alpha=alpha)


def test_operators_of_other_providers() -> None:
    """ONNX Runtime has these on GPUs only: compared with their definitions."""
    inputs = {"x": x(), "bias": vector(1)}
    left, right = np.split(inputs["x"] + inputs["bias"], 2, axis=-1)
    gelu = ours(model_of("Gelu", {"x": right}), {"x": right})[0]
    found = ours(model_of("BiasSplitGelu", inputs, open_sizes=OPEN), inputs)[0]
    np.testing.assert_allclose(found, left * gelu, rtol=1e-6)
    inputs["skip"] = x(2)
    found = ours(model_of("BiasAdd", inputs, open_sizes=OPEN), inputs)[0]
    np.testing.assert_array_equal(found, inputs["x"] + inputs["bias"] + inputs["skip"])


@pytest.mark.parametrize("transposed", ((0, 0), (0, 1), (1, 0), (1, 1)))
@pytest.mark.parametrize("batch", (0, 1))
def test_fused_matmul(transposed: tuple[int, int], batch: int) -> None:
    left, right = (4, 6), (6, 5)
    a, b = (
        normal(2, 3, *(shape[::-1] if turned else shape), seed=seed)
        for seed, (shape, turned) in enumerate(zip((left, right), transposed, strict=True))
    )
    if batch:
        a, b = (np.ascontiguousarray(np.moveaxis(m, 2, 0)) for m in (a, b))
    names = {"transA": transposed[0], "transB": transposed[1]}
    names |= {"transBatchA": batch, "transBatchB": batch}
    agree("FusedMatMul", {"a": a, "b": b}, attributes={"alpha": 0.5, **names})


@pytest.mark.parametrize(
    ("activation", "alpha"),
    (("Relu", None), ("LeakyRelu", 0.2), ("Tanh", None), ("Sigmoid", None)),
)
def test_fused_gemm(activation: str, alpha: float | None) -> None:
    given = {"a": normal(4, 6, seed=1), "b": normal(6, 5, seed=2), "c": normal(5, seed=3)}
    parameters = {} if alpha is None else {"activation_alpha": alpha}
    fused("FusedGemm", **given, alpha=0.5, beta=2.0, activation=activation, **parameters)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    (("Relu", []), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.3, 0.4])),
)
@pytest.mark.parametrize("z", (True, False))
def test_fused_conv(activation: str, parameters: list[float], z: bool) -> None:
    inputs = {"x": normal(2, 3, 8, 8), "w": normal(4, 3, 3, 3, seed=1) / 5, "b": normal(4, seed=2)}
    if z:
        inputs["z"] = normal(2, 4, 8, 8, seed=3)
        activation, parameters = "Relu", []
    attributes = {"activation": activation, "pads": [1, 1, 1, 1]}
    attributes |= {"activation_params": parameters} if parameters else {}
    options: dict[str, Any] = {"constants": ("w", "b"), "open_sizes": (2,)}
    agree("FusedConv", inputs, attributes=attributes, **options)


def test_operators_that_the_standard_has_too() -> None:
    matrices = normal(B, 4, 4) + 4 * np.eye(4, dtype=np.float32)
    fused("Inverse", x=matrices)
    for upper in (0, 1):
        fused("Trilu", x=matrices, upper=upper)
        fused("Trilu", x=matrices, k=np.array(1), upper=upper)
