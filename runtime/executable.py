"""An executable: stages bound to their weights and chosen kernels.

A stage runs as the Python function that the printer shows, compiled once, with every operator
looked up beforehand. Names and literals are checked by the printer, operators by the verifier or
the loader, so no text from a file is ever executed as such.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx

from effc.ir.printer import print_stage
from effc.ir.program import Program, Stage
from effc.kernels.registry import REFERENCE, resolve

State = torch.Tensor | list[torch.Tensor] | None
Function = Callable[..., tuple[torch.Tensor, ...]]


class Executable:
    """Runs the stages of a lowered program.

    Args:
        program: what to run; its weights are loaded now, once, onto the device.
        device: where to run, e.g. "cpu".
        kernels: "auto" for the recorded choices, "reference" to run every operator's reference.
        progress: called with the name of each weight as it is loaded.
    """

    def __init__(
        self,
        program: Program,
        *,
        device: str = "cpu",
        kernels: str = "auto",
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.program = program
        self.device = device
        self._weights: dict[str, torch.Tensor] = {}
        for name in sorted(program.read_weights()):
            self._weights[name] = program.weights[name].load().to(device)
            if progress is not None:
                progress(name)
        self._functions = _compile_all(program, device, kernels)

    def __call__(self, stage: str, inputs: Mapping[str, State]) -> dict[str, torch.Tensor]:
        """Run one stage.

        Args:
            stage: its name.
            inputs: one value per input; optional ones may be left out.

        Returns:
            The results by name.
        """
        described = self.program.stages[stage]
        values = [
            inputs.get(spec.name) if spec.optional else inputs[spec.name]
            for spec in described.inputs
        ]
        with torch.inference_mode(), _threads(self.program.threads):
            results = self._functions[stage](self._weights, *values)
        return dict(zip(described.outputs, results, strict=True))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Run with so many threads; the caller's own setting comes back afterwards."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compile_all(program: Program, device: str, kernels: str) -> dict[str, Function]:
    """Every stage as a function of weights and inputs."""
    functions: dict[str, Function] = {}
    # What the printed text calls: `stages.then_0(weights)` is a function of the stage's inputs.
    stages, predicates = SimpleNamespace(), SimpleNamespace()
    for name, stage in program.stages.items():
        namespace = {
            "torch": torch,
            "operator": operator,
            "stages": stages,
            "predicates": predicates,
        }
        functions[name] = _compile(stage, namespace, device, kernels)
        setattr(stages, name, partial(partial, functions[name]))
        setattr(predicates, name, partial(_predicate, functions[name]))
    return functions


def _predicate(function: Function, weights: Mapping[str, torch.Tensor]) -> Callable[..., Any]:
    """A stage with one result as a function that returns it."""
    return lambda *inputs: function(weights, *inputs)[0]


def _compile(stage: Stage, namespace: dict[str, Any], device: str, kernels: str) -> Function:
    def callee(node: fx.Node) -> str:
        kernel = node.meta.get("kernel", REFERENCE)
        if kernels == "reference":
            kernel = REFERENCE
        key = (node.target, kernel)
        if key not in bound:
            # Two underscores: the printer gives no node such a name.
            bound[key] = f"__call_{len(bound)}"
            namespace[bound[key]] = (
                node.target if kernel == REFERENCE else resolve(_op_name(node), kernel, device)
            )
        return bound[key]

    bound: dict[tuple[Any, str], str] = {}
    text = print_stage(stage, comments=False, release=True, callee=callee)
    exec(compile(text, f"<effc stage {stage.name}>", "exec"), namespace)  # noqa: S102
    return namespace[stage.name]


def _op_name(node: fx.Node) -> str:
    return str(node.target).split(".")[1]
