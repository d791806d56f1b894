"""One step of the recurrent operators, in all the forms that ONNX has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Unsupported, Value

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """A function by its ONNX name."""

    name: str
    alpha: float
    beta: float


@dataclass(frozen=True)
class Options:
    """The attributes of a recurrent node.

    Attributes:
        direction: "forward", "reverse" or "bidirectional".
        activations: those of every direction.
        clip: what enters an activation is kept between -clip and clip; 0 for no limit.
        input_forget: an LSTM forgets as much as it takes in.
        linear_before_reset: a GRU multiplies before it resets.
    """

    direction: str
    activations: tuple[tuple[Activation, ...], ...]
    clip: float = 0.0
    input_forget: int = 0
    linear_before_reset: int = 0


def _affine(g: Builder, x: Value, alpha: float, beta: float) -> Value:
    return g.call(aten.add.Scalar, g.call(aten.mul.Scalar, x, alpha), beta)


def _scaled_tanh(g: Builder, x: Value, alpha: float, beta: float) -> Value:
    inner = g.call(aten.tanh.default, g.call(aten.mul.Scalar, x, beta))
    return g.call(aten.mul.Scalar, inner, alpha)


def _softsign(g: Builder, x: Value, alpha: float, beta: float) -> Value:
    size = g.call(aten.add.Scalar, g.call(aten.abs.default, x), 1)
    return g.call(aten.div.Tensor, x, size)


def _plain(target: Any) -> Callable[..., Value]:
    return lambda g, x, alpha, beta: g.call(target, x)


def _with_alpha(target: Any, *more: float) -> Callable[..., Value]:
    return lambda g, x, alpha, beta: g.call(target, x, alpha, *more)


def _hard_sigmoid(g: Builder, x: Value, alpha: float, beta: float) -> Value:
    return g.call(aten.clamp.default, _affine(g, x, alpha, beta), 0, 1)


# Name -> function, and the defaults of alpha and beta where it has them.
_FUNCTIONS: dict[str, tuple[Callable[..., Value], float | None, float | None]] = {
    "Affine": (_affine, 1.0, 0.0),
    "Elu": (_with_alpha(aten.elu.default), 1.0, None),
    "HardSigmoid": (_hard_sigmoid, 0.2, 0.5),
    "LeakyRelu": (_with_alpha(aten.leaky_relu.default), 0.01, None),
    "Relu": (_plain(aten.relu.default), None, None),
    "ScaledTanh": (_scaled_tanh, 1.0, 1.0),
    "Sigmoid": (_plain(aten.sigmoid.default), None, None),
    "Softplus": (_plain(aten.softplus.default), None, None),
    "Softsign": (_softsign, None, None),
    "Tanh": (_plain(aten.tanh.default), None, None),
    "ThresholdedRelu": (_with_alpha(aten.threshold.default, 0.0), 1.0, None),
}


def activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """Functions with their parameters; those that have some take them in order.

    Raises:
        Unsupported: a name is not of the standard.
    """
    found, left, right = [], list(alphas), list(betas)
    for name in names:
        known = next((full for full in _FUNCTIONS if full.lower() == name.lower()), None)
        if known is None:
            raise Unsupported(f"the activation {name}")
        _, alpha, beta = _FUNCTIONS[known]
        alpha = left.pop(0) if alpha is not None and left else alpha
        beta = right.pop(0) if beta is not None and right else beta
        found.append(Activation(known, alpha or 0.0, beta or 0.0))
    return found


class Cell(Protocol):
    """A recurrent cell of one direction."""

    def step(self, t: int, states: list[Value]) -> list[Value]:
        """The states [B, H] after step t, the output first."""
        ...


class _Gates:
    """What the cells have in common: products with the input, made once for all steps."""

    def __init__(
        self,
        g: Builder,
        tensors: tuple[Value, ...],
        options: Options,
        chosen: tuple[Activation, ...],
    ) -> None:
        x, w, self.r, b, self.peepholes = tensors
        self.g, self.options, self.chosen = g, options, chosen
        width = g.size(self.r, 1)
        if not isinstance(width, int):
            raise Unsupported("the size of the state is only known at run time")
        self.width = width
        count = g.size(self.r, 0)
        self.bias_r = None if b is None else g.call(aten.slice.Tensor, b, 0, count, None)
        bias_w = None if b is None else g.call(aten.slice.Tensor, b, 0, 0, count)
        self.given = g.call(aten.linear.default, x, w, bias_w)

    def block(self, value: Value, index: int, dim: int = 1) -> Value:
        """One gate's part."""
        start = index * self.width
        return self.g.call(aten.slice.Tensor, value, dim, start, start + self.width)

    def at(self, t: int) -> Value:
        """The products with the input of step t: [B, gates * H]."""
        return self.g.call(aten.select.int, self.given, 0, t)

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.g.call(aten.add.Tensor, a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self.g.call(aten.mul.Tensor, a, b)

    def activate(self, index: int, x: Value) -> Value:
        """One of the direction's activations, after clipping."""
        if self.options.clip:
            x = self.g.call(aten.clamp.default, x, -self.options.clip, self.options.clip)
        chosen = self.chosen[index]
        return _FUNCTIONS[chosen.name][0](self.g, x, chosen.alpha, chosen.beta)


class LstmCell(_Gates):
    """Blocks i, o, f, c; peepholes i, o, f."""

    def step(self, t: int, states: list[Value]) -> list[Value]:
        h, c = states
        recurrent = self.g.call(aten.linear.default, h, self.r, self.bias_r)
        inner = self.add(self.at(t), recurrent)
        enter = self.activate(0, self._peeped(self.block(inner, 0), c, 0))
        if self.options.input_forget:
            keep = self.g.call(aten.rsub.Scalar, enter, 1)
        else:
            keep = self.activate(0, self._peeped(self.block(inner, 2), c, 2))
        candidate = self.activate(1, self.block(inner, 3))
        c = self.add(self.mul(keep, c), self.mul(enter, candidate))
        leave = self.activate(0, self._peeped(self.block(inner, 1), c, 1))
        # Clipping concerns what enters the gates, not the cell's own state.
        last = self.chosen[2]
        seen = _FUNCTIONS[last.name][0](self.g, c, last.alpha, last.beta)
        return [self.mul(leave, seen), c]

    def _peeped(self, gate: Value, c: Value, index: int) -> Value:
        if self.peepholes is None:
            return gate
        return self.add(gate, self.mul(self.block(self.peepholes, index, 0), c))


class GruCell(_Gates):
    """Blocks z, r, h."""

    def step(self, t: int, states: list[Value]) -> list[Value]:
        (h,) = states
        given = self.at(t)
        recurrent = self.g.call(aten.linear.default, h, self.r, self.bias_r)
        update, reset = (
            self.activate(0, self.add(self.block(given, i), self.block(recurrent, i)))
            for i in range(2)
        )
        if self.options.linear_before_reset:
            inner = self.mul(reset, self.block(recurrent, 2))
        else:
            bias = None if self.bias_r is None else self.block(self.bias_r, 2, 0)
            rows = self.block(self.r, 2, 0)
            inner = self.g.call(aten.linear.default, self.mul(reset, h), rows, bias)
        candidate = self.activate(1, self.add(self.block(given, 2), inner))
        rest = self.g.call(aten.rsub.Scalar, update, 1)
        return [self.add(self.mul(rest, candidate), self.mul(update, h))]


class RnnCell(_Gates):
    """One block."""

    def step(self, t: int, states: list[Value]) -> list[Value]:
        (h,) = states
        recurrent = self.g.call(aten.linear.default, h, self.r, self.bias_r)
        return [self.activate(0, self.add(self.at(t), recurrent))]


CELLS: dict[str, Callable[..., Cell]] = {"GRU": GruCell, "LSTM": LstmCell, "RNN": RnnCell}
