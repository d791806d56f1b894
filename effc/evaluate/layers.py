"""Where in the network two models part: the residual stream after every layer.

The stream after layer i is the last value of that layer which another layer, or what comes after
the layers, reads. It becomes one more output ("a tap") on a copy of the stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx

from effc.evaluate.estimates import json_number
from effc.evaluate.subject import Subject
from effc.ir.program import Program, Stage
from effc.ir.types import dtype_of
from effc.runtime.executable import State

PREFIX = "stream_"

Taps = dict[int, Tensor]
"""Layer -> its stream, [B, T, W] for language models."""


class Tapped:
    """A stage of a subject that also gives the streams between its layers.

    It stands in for the subject where a `Session` wants something to run.

    Attributes:
        program: the subject's, with one more output per layer.
        layers: those that have a stream.
    """

    def __init__(self, subject: Subject, stage: str) -> None:
        self.program, names = with_taps(subject.program, stage)
        self.layers = sorted(names)
        self._names = names
        self._run = subject.executable(self.program)
        self._stage = stage
        self._calls = subject.calls
        self._pieces: list[Taps] = []

    def __call__(self, stage: str, inputs: Mapping[str, State]) -> dict[str, Tensor]:
        """Run a stage; the streams of the tapped one are kept until `take`."""
        self._calls[stage] += 1
        results = self._run(stage, inputs)
        if stage != self._stage:
            return results
        self._pieces.append({layer: results.pop(name) for layer, name in self._names.items()})
        return results

    def take(self) -> Taps:
        """The streams since the last `take`, the pieces of a prompt joined along T."""
        pieces, self._pieces = self._pieces, []
        if len(pieces) == 1:
            return pieces[0]
        return {layer: torch.cat([piece[layer] for piece in pieces], 1) for layer in self.layers}


def with_taps(program: Program, stage: str) -> tuple[Program, dict[int, str]]:
    """A copy of a program with the streams of one stage among its outputs.

    Returns:
        The program, and layer -> name of the output.
    """
    copy = program.copy()
    chosen = copy.stages[stage]
    found = {node.meta["layer"]: node for node in _crossing(chosen)}
    names = {layer: f"{PREFIX}{layer}" for layer in sorted(found)}
    output = chosen.output_node
    output.args = ((*output.args[0], *(found[layer] for layer in names)),)  # type: ignore[misc]
    outputs = (*chosen.outputs, *names.values())
    copy.stages[stage] = replace(chosen, outputs=outputs)
    return copy, names


def _crossing(stage: Stage) -> Iterator[fx.Node]:
    """Values of a layer that are read outside of it, in the order they are made."""
    for node in stage.graph.nodes:
        layer = node.meta.get("layer")
        if layer is None or node.op != "call_function" or "float" not in (dtype_of(node) or ""):
            continue
        if any(user.op != "output" and user.meta.get("layer") != layer for user in node.users):
            yield node


class LayerErrors:
    """Relative RMS error per layer, sqrt(sum (y - x)^2 / sum x^2) over all tokens and channels."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, float]] = {}
        self._apart: set[int] = set()

    def add(self, original: Taps, rewritten: Taps) -> None:
        """Take in the streams of some tokens; layers that only one model has are left out."""
        for layer in original.keys() & rewritten.keys():
            x, y = original[layer], rewritten[layer]
            if x.shape != y.shape:
                self._apart.add(layer)
                continue
            wrong, size = self._sums.get(layer, (0.0, 0.0))
            x64 = x.double()
            wrong += float((y.double() - x64).square().sum())
            self._sums[layer] = (wrong, size + float(x64.square().sum()))

    def result(self) -> list[dict[str, float | int | None]]:
        """The entry "layers" of a quality report."""
        return [
            {"layer": layer, "relative_error": json_number(_relative(wrong, size))}
            for layer, (wrong, size) in sorted(self._sums.items())
            if layer not in self._apart
        ]


def _relative(wrong: float, size: float) -> float:
    if wrong == 0:
        return 0.0
    return (wrong / size) ** 0.5 if size else float("inf")
