"""LSTM, GRU and RNN: torch's modules for the usual forms, ONNX Runtime for the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from effc.diagnostics import ModelError
from tests.frontend.onnx.ops.oracles import agree, attributes
from tests.frontend.onnx.ops.texts import calls, numbers, run

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Blocks of torch's rows in ONNX's order.
ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
WIDTH, INPUT = 3, 2


def text(kind: str, length: str, form: dict[str, Any], extra: str = "", given: str = "") -> str:
    """A model of one recurrent node; x is [T, B, I]."""
    d = 2 if form.get("direction") == "bidirectional" else 1
    rows = GATES[kind] * WIDTH
    states = ", c" if kind == "LSTM" else ""
    head = f"float[{length},B,2] x, float[{d},{rows},2] w, float[{d},{rows},3] r, "
    head += f"float[{d},{2 * rows}] b{extra}"
    results = f"float[{length},{d},B,3] y, float[{d},B,3] h"
    results += f", float[{d},B,3] c" if states else ""
    call = f"{kind} {attributes({'hidden_size': WIDTH, **form})} (x, w, r, b{given})"
    return f"m ({head}) => ({results}) {{ y, h{states} = {call} }}"


def weights(kind: str, directions: int) -> list[np.ndarray]:
    """w, r and b."""
    rows = GATES[kind] * WIDTH
    shapes = ((rows, INPUT), (rows, WIDTH), (2 * rows,))
    return [numbers(directions, *shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_any_length_as_torchs_modules(kind: str, direction: str) -> None:
    form = {"direction": direction} | ({"linear_before_reset": 1} if kind == "GRU" else {})
    count = 2 if direction == "bidirectional" else 1
    module = getattr(torch.nn, kind)(INPUT, WIDTH, bidirectional=count == 2)
    given = weights(kind, count)
    names = [name for name, _ in module.named_parameters()]
    for d in range(count):
        w, r, b = (part[d] for part in given)
        parts = [w, r, *np.split(b, 2)]
        for name, part in zip(names[4 * d : 4 * d + 4], parts, strict=True):
            blocks = np.split(part, GATES[kind])
            inverse = [ORDER[kind].index(i) for i in range(GATES[kind])]
            rows = np.concatenate([blocks[i] for i in inverse])
            module.get_parameter(name).data = torch.from_numpy(rows)
    for length, batch in ((1, 2), (5, 1)):
        x = numbers(length, batch, INPUT)
        y, *states = run(text(kind, "T", form), x, *given)
        ordered = torch.from_numpy(x[::-1].copy() if direction == "reverse" else x)
        with torch.no_grad():
            wanted, last = module(ordered)
        wanted = wanted.numpy().reshape(length, batch, count, WIDTH).swapaxes(1, 2)
        wanted = wanted[::-1] if direction == "reverse" else wanted
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
        for found, expected in zip(states, last if kind == "LSTM" else (last,), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


FORMS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"clip": 0.3}),
    ("LSTM", {"direction": "bidirectional", "activations": ["HardSigmoid", "Relu", "Tanh"] * 2}),
    ("GRU", {"linear_before_reset": 0, "direction": "bidirectional"}),
    ("GRU", {"clip": 0.4, "direction": "reverse", "linear_before_reset": 1}),
    ("GRU", {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.2]}),
    ("RNN", {"activations": ["Relu"]}),
    ("RNN", {"activations": ["Affine"], "activation_alpha": [0.3], "activation_beta": [0.1]}),
    ("RNN", {"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [2.0]}),
    ("RNN", {"activations": ["Softsign"], "direction": "reverse"}),
    ("RNN", {"activations": ["Elu"], "activation_alpha": [0.5]}),
]


@pytest.mark.parametrize(("kind", "form"), FORMS, ids=str)
def test_unusual_forms(kind: str, form: dict[str, Any]) -> None:
    given = weights(kind, 2 if form.get("direction") == "bidirectional" else 1)
    model = text(kind, "4", form)
    agree(model, *[(numbers(4, batch, INPUT, seed=9), *given) for batch in (1, 3)])


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_sequences_that_end_early(kind: str, direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    states = ("h0", "c0") if kind == "LSTM" else ("h0",)
    extra = ", int32[B] l" + "".join(f", float[{count},B,3] {name}" for name in states)
    model = text(kind, "4", {"direction": direction}, extra, f", l, {', '.join(states)}")
    first = [numbers(count, 3, WIDTH, seed=5 + i) for i in range(len(states))]
    lengths = np.array([4, 1, 2], np.int32)
    agree(model, (numbers(4, 3, INPUT, seed=9), *weights(kind, count), lengths, *first))


@pytest.mark.parametrize("coupled", [0, 1])
def test_peepholes(coupled: int) -> None:
    """Against the equations, one element after another."""
    model = text("LSTM", "3", {"input_forget": coupled}, ", float[1,9] p", ", , , , p")
    w, r, b = weights("LSTM", 1)
    x, p = numbers(3, 2, INPUT, seed=7), numbers(1, 9, seed=8)
    h = c = np.zeros((2, WIDTH))
    wanted = []
    pi, po, pf = np.split(p[0], 3)
    for step in x:
        i, o, f, z = np.split(step @ w[0].T + h @ r[0].T + b[0, :12] + b[0, 12:], 4, axis=1)
        enter = 1 / (1 + np.exp(-(i + pi * c)))
        keep = 1 - enter if coupled else 1 / (1 + np.exp(-(f + pf * c)))
        c = keep * c + enter * np.tanh(z)
        h = np.tanh(c) / (1 + np.exp(-(o + po * c)))
        wanted.append(h)
    y, last, cell = run(model, x, w, r, b, p)
    np.testing.assert_allclose(y[:, 0], np.stack(wanted), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last[0], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cell[0], c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", GATES)
def test_the_batch_may_come_first(kind: str) -> None:
    w, r, b = weights(kind, 1)
    x = numbers(4, 2, INPUT)
    y, *states = (
        run(text(kind, "T", {}), x, w, r, b)
        if kind != "GRU"
        else run(text(kind, "4", {}), x, w, r, b)
    )
    turned = text(kind, "4", {"layout": 1}).replace("4,B,2", "B,4,2").replace("4,1,B,3", "B,4,1,3")
    other, *lasts = run(turned.replace("1,B,3", "B,1,3"), x.swapaxes(0, 1), w, r, b)
    np.testing.assert_allclose(other, y.transpose(2, 0, 1, 3), rtol=1e-6, atol=1e-7)
    for found, wanted in zip(lasts, states, strict=True):
        np.testing.assert_allclose(found, wanted.swapaxes(0, 1), rtol=1e-6, atol=1e-7)


def test_usual_forms_are_one_operator() -> None:
    assert sum("aten.lstm.input" in line for line in calls(text("LSTM", "T", {}))) == 1


def test_unusual_forms_need_a_known_length() -> None:
    with pytest.raises(ModelError, match="the length of the sequence is only known at run time"):
        calls(text("LSTM", "T", {"clip": 1.0}))


def test_unknown_activations_are_named() -> None:
    with pytest.raises(ModelError, match="the activation Swash"):
        calls(text("RNN", "2", {"activations": ["Swash"]}))
