"""LSTM, GRU and RNN.

In their usual forms they are one call of aten's operators, for sequences of any length. The other
forms (peepholes, clipping, unusual activations, sequences that end early) are written out step by
step, for a known length.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.cells import CELLS, Options, activations
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Unsupported, Value

aten = torch.ops.aten

_USUAL = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
# Blocks of rows in aten's order, by their place in ONNX: i o f c, z r h.
_BLOCKS = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}

MAX_STEPS = 1024


@dataclass(frozen=True)
class Inputs:
    """The tensors of a recurrent node; sequences run along the first dimension.

    Attributes:
        x: [T, B, I].
        w, r: [directions, gates * H, I] and [directions, gates * H, H].
        b: [directions, 2 * gates * H].
        lengths: [B].
        states: h, and c of an LSTM, [directions, B, H] each.
        peepholes: [directions, 3 * H].
    """

    x: Value
    w: Value
    r: Value
    b: Value
    lengths: Value
    states: list[Value]
    peepholes: Value = None


def lstm(
    g: Builder,
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    sequence_lens: Value = None,
    initial_h: Value = None,
    initial_c: Value = None,
    p: Value = None,
    **attributes: Any,
) -> tuple[Value, ...]:
    """Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; with Gers' peepholes."""
    inputs = Inputs(x, w, r, b, sequence_lens, [initial_h, initial_c], p)
    return _recurrent(g, "LSTM", inputs, **attributes)


def gru(
    g: Builder,
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    sequence_lens: Value = None,
    initial_h: Value = None,
    **attributes: Any,
) -> tuple[Value, ...]:
    """Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014."""
    return _recurrent(g, "GRU", Inputs(x, w, r, b, sequence_lens, [initial_h]), **attributes)


def rnn(
    g: Builder,
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    sequence_lens: Value = None,
    initial_h: Value = None,
    **attributes: Any,
) -> tuple[Value, ...]:
    """Elman, "Finding Structure in Time", 1990."""
    return _recurrent(g, "RNN", Inputs(x, w, r, b, sequence_lens, [initial_h]), **attributes)


def _recurrent(
    g: Builder,
    kind: str,
    inputs: Inputs,
    *,
    direction: str = "forward",
    hidden_size: int = 0,
    layout: int = 0,
    **attributes: Any,
) -> tuple[Value, ...]:
    """Outputs Y [T, directions, B, H] and the last states; with layout 1 the batch comes first."""
    options = _options(kind, direction, **attributes)
    inputs = _prepared(g, inputs, layout)
    if _is_usual(kind, inputs, options):
        y, states = _at_once(g, kind, inputs, options)
    else:
        y, states = _by_steps(g, kind, inputs, options)
    if layout:
        y = g.call(aten.permute.default, y, [2, 0, 1, 3])
        states = [g.call(aten.transpose.int, state, 0, 1) for state in states]
    return y, *states


def _options(kind: str, direction: str, **attributes: Any) -> Options:
    count = 2 if direction == "bidirectional" else 1
    given = attributes.pop("activations", None) or list(_USUAL[kind]) * count
    each = len(_USUAL[kind])
    if len(given) != each * count:
        raise Mismatch(f"{len(given)} activations, {each * count} are needed")
    alphas = attributes.pop("activation_alpha", None) or []
    betas = attributes.pop("activation_beta", None) or []
    found = activations(given, alphas, betas)
    parts = tuple(tuple(found[i * each : (i + 1) * each]) for i in range(count))
    # Opset 7 has an attribute that says whether all outputs are wanted; the outputs say it too.
    attributes.pop("output_sequence", None)
    return Options(direction, parts, **attributes)


def _prepared(g: Builder, inputs: Inputs, layout: int) -> Inputs:
    """Sequences first, and zeros for states that are not given."""
    x, states = inputs.x, inputs.states
    if layout:
        x = g.call(aten.transpose.int, x, 0, 1)
        states = [s if s is None else g.call(aten.transpose.int, s, 0, 1) for s in states]
    shape = [g.size(inputs.r, 0), g.size(x, 1), g.size(inputs.r, 2)]
    zeros = None
    if any(state is None for state in states):
        zeros = g.call(aten.zeros.default, shape, dtype=g.dtype(x))
    states = [zeros if state is None else state for state in states]
    rest = (inputs.w, inputs.r, inputs.b, inputs.lengths)
    return Inputs(x, *rest, states, inputs.peepholes)


def _is_usual(kind: str, inputs: Inputs, options: Options) -> bool:
    """Whether aten's operator computes this."""
    names = [tuple(a.name for a in one) for one in options.activations]
    plain = all(one == _USUAL[kind] for one in names)
    relu = kind == "RNN" and all(one == ("Relu",) for one in names)
    after = kind != "GRU" or bool(options.linear_before_reset)
    absent = inputs.lengths is None and inputs.peepholes is None
    return (plain or relu) and after and absent and not options.clip and not options.input_forget


def _at_once(g: Builder, kind: str, inputs: Inputs, options: Options) -> tuple[Value, list[Value]]:
    """One call of aten's operator."""
    relu = options.activations[0][0].name == "Relu"
    target = {
        "LSTM": aten.lstm.input,
        "GRU": aten.gru.input,
        "RNN": aten.rnn_relu.input if relu else aten.rnn_tanh.input,
    }[kind]
    backwards, both = options.direction == "reverse", options.direction == "bidirectional"
    parameters = []
    for d in range(2 if both else 1):
        parameters += _aten_parameters(g, kind, inputs, d)
    x = g.call(aten.flip.default, inputs.x, [0]) if backwards else inputs.x
    state: Any = inputs.states if kind == "LSTM" else inputs.states[0]
    rest = (parameters, inputs.b is not None, 1, 0.0, False, both, False)
    y, last = _typed_call(g, target, x, state, rest, inputs)
    y = g.call(aten.flip.default, y, [0]) if backwards else y
    shape = [*g.shape(x)[:2], 2 if both else 1, g.size(inputs.r, 2)]
    y = g.call(aten.reshape.default, y, shape)
    return g.call(aten.transpose.int, y, 1, 2), last


def _typed_call(
    g: Builder, target: Any, x: Value, state: Any, rest: Any, inputs: Inputs
) -> tuple[Value, list[Value]]:
    """The call with results that are typed here.

    The operator's own shape function runs through the sequence and would fix its length.
    """
    fake = g.fake(x)
    states = [g.fake(s) for s in inputs.states]
    values: list[Any] = [None] * (1 + len(states))
    first_state = states[0]
    known = all(state is not None for state in states)
    if fake is not None and first_state is not None and known:
        with g.mode:
            width = first_state.shape[0] * first_state.shape[2]
            sequence = fake.new_empty((*fake.shape[:2], width))
        values = [sequence, *states]
    first = [g.node(s) for s in state] if isinstance(state, list) else g.node(state)
    parameters = [g.node(p) for p in rest[0]]
    call = g.emit_as(tuple(values), target, g.node(x), first, parameters, *rest[1:])
    made = [g.emit_as(value, operator.getitem, call, i) for i, value in enumerate(values)]
    return made[0], list(made[1:])


def _aten_parameters(g: Builder, kind: str, inputs: Inputs, d: int) -> list[Value]:
    """Weights and biases of one direction, with the gates in aten's order."""
    width = g.size(inputs.r, 2)
    if not isinstance(width, int):
        raise Unsupported("the size of the state is only known at run time")
    gates = len(_BLOCKS[kind])
    rows = [block * width + i for block in _BLOCKS[kind] for i in range(width)]
    parts = [g.call(aten.select.int, one, 0, d) for one in (inputs.w, inputs.r)]
    if inputs.b is not None:
        both = g.call(aten.select.int, inputs.b, 0, d)
        half = gates * width
        parts += [g.call(aten.slice.Tensor, both, 0, i * half, (i + 1) * half) for i in range(2)]
    if gates == 1:
        return parts
    order = torch.tensor(rows)
    return [g.call(aten.index_select.default, part, 0, order) for part in parts]


def _by_steps(g: Builder, kind: str, inputs: Inputs, options: Options) -> tuple[Value, list[Value]]:
    """Every step of every direction on its own."""
    length = g.size(inputs.x, 0)
    if not isinstance(length, int):
        raise Unsupported("the length of the sequence is only known at run time")
    if length > MAX_STEPS:
        raise Unsupported(f"{length} steps; {MAX_STEPS} are written out at most")
    sequences, lasts = [], []
    for d, chosen in enumerate(options.activations):
        backwards = options.direction == "reverse" or d == 1
        take = [g.call(aten.select.int, s, 0, d) for s in inputs.states]
        cell = CELLS[kind](g, _direction(g, inputs, d), options, chosen)
        outputs: dict[int, Value] = {}
        for t in reversed(range(length)) if backwards else range(length):
            new = cell.step(t, take)
            outputs[t], take = _ended(g, inputs.lengths, t, new, take)
        sequences.append(g.call(aten.stack.default, [outputs[t] for t in range(length)]))
        lasts.append(take)
    y = g.call(aten.stack.default, sequences, 1)
    states = [g.call(aten.stack.default, list(part)) for part in zip(*lasts, strict=True)]
    return y, states


def _direction(g: Builder, inputs: Inputs, d: int) -> tuple[Value, ...]:
    """x, w, r, b and peepholes of one direction."""
    chosen = [
        None if part is None else g.call(aten.select.int, part, 0, d)
        for part in (inputs.w, inputs.r, inputs.b, inputs.peepholes)
    ]
    return (inputs.x, *chosen)


def _ended(
    g: Builder, lengths: Value, t: int, new: list[Value], old: list[Value]
) -> tuple[Value, list[Value]]:
    """Output and states after step t: 0 and unchanged where a sequence has ended before it."""
    if lengths is None:
        return new[0], new
    going = g.call(aten.unsqueeze.default, g.call(aten.gt.Scalar, lengths, t), 1)
    kept = [g.call(aten.where.self, going, a, b) for a, b in zip(new, old, strict=True)]
    return g.call(aten.mul.Tensor, new[0], going), kept


TABLE: dict[str, Translation] = {"GRU": gru, "LSTM": lstm, "RNN": rnn}
