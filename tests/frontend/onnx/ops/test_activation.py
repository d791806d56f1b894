"""Activations and softmaxes, in the forms of all opsets."""

from __future__ import annotations

import numpy as np
import pytest

from effc.diagnostics import ModelError
from tests.frontend.onnx.ops.oracles import agree
from tests.frontend.onnx.ops.texts import calls, numbers, run

HARD = np.array([-1e4, -50, -21, -1, -0.5, -1e-6, 0, 1e-6, 0.5, 1, 21, 50, 1e4], np.float32)


@pytest.mark.parametrize(
    "op",
    [
        "Celu <alpha = 0.7>",
        "Elu <alpha = 2.5>",
        "HardSigmoid",
        "HardSigmoid <alpha = 0.4, beta = 0.1>",
        "HardSwish",
        "LeakyRelu <alpha = -0.3>",
        "Mish",
        "Relu",
        "Selu",
        "Selu <alpha = 1.2, gamma = 3.0>",
        "Shrink <bias = 0.2, lambd = 0.9>",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "ThresholdedRelu <alpha = 0.5>",
    ],
)
def test_functions(op: str) -> None:
    name, _, attributes = op.partition(" ")
    text = f"m (float[N] x) => (float[N] y) {{ y = {name} {attributes} (x) }}"
    agree(text, (HARD,), (np.linspace(-3, 3, 41, dtype=np.float32),))


def test_softplus_is_exact_in_double_precision() -> None:
    x = np.array([-3.0, 0.0, 19.0, 21.0, 30.0, 39.0, 41.0, 700.0])
    (found,) = run("m (double[N] x) => (double[N] y) { y = Softplus (x) }", x)
    np.testing.assert_allclose(found, np.logaddexp(0, x), rtol=1e-15)


def test_slopes_broadcast() -> None:
    text = "m (float[N,3,H] x, float[3,1] s) => (float[N,3,H] y) { y = PRelu (x, s) }"
    agree(text, *[(numbers(n, 3, 4), numbers(3, 1)) for n in (1, 5)])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, None])
@pytest.mark.parametrize("opset", [11, 13])
def test_softmaxes(op: str, axis: int | None, opset: int) -> None:
    attributes = "" if axis is None else f"<axis = {axis}>"
    text = f"m (float[N,3,K] x) => (float[N,3,K] y) {{ y = {op} {attributes} (x) }}"
    agree(text, *[(numbers(n, 3, k),) for n, k in ((1, 4), (2, 1), (3, 5))], opset=opset)


def test_the_older_softmax_of_the_last_axis_is_the_newer() -> None:
    text = "m (float[N,3,K] x) => (float[N,3,K] y) { y = Softmax <axis = 2> (x) }"
    assert calls(text, opset=11) == calls(text, opset=13)


@pytest.mark.parametrize(("opset", "kind"), [(7, "float"), (10, "bool"), (13, "bool")])
def test_nothing_is_dropped(opset: int, kind: str) -> None:
    attribute = "<ratio = 0.9>" if opset < 12 else ""
    text = f"m (float[N] x) => (float[N] y, {kind}[N] m) {{ y, m = Dropout {attribute} (x) }}"
    y, mask = run(text, HARD, opset=opset)
    np.testing.assert_array_equal(y, HARD)
    assert mask.all() and mask.dtype == ("bool" if kind == "bool" else "float32")


def test_training_is_refused() -> None:
    text = "m (float[N] x) => (float[N] y) {"
    text += " t = Constant <value = bool {1}> () r = Constant <value = float {0.5}> ()"
    with pytest.raises(ModelError, match="training mode draws random numbers"):
        run(text + " y = Dropout (x, r, t) }", HARD)
