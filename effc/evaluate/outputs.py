"""Models that are called, not decoded: the same inputs, the results side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from effc.diagnostics import EffcError
from effc.evaluate.estimates import json_number
from effc.evaluate.layers import LayerErrors, Tapped
from effc.evaluate.subject import Subject
from effc.ir.pattern import op_name
from effc.ir.program import InputSpec, Program, Stage

STAGE = "forward"
SEED = 20
BATCH, LENGTH = 4, 16
"""What symbolic sizes become in random inputs: B, and every other one."""

Inputs = Mapping[str, Any]

# Operator -> the positions of its table of rows and of the indices into them.
_LOOKUPS = {"aten.embedding.default": (0, 1), "effc.quantized_embedding.default": (1, 0)}


def compare_outputs(
    original: Subject, rewritten: Subject, inputs: Inputs
) -> tuple[list[dict[str, Any]], LayerErrors]:
    """Call both models once.

    Returns:
        The entry "outputs" of a quality report, per floating-point result: the relative RMS error
        |y - x| / |x| and the cosine between x and y, over all elements; and the layer errors.

    Raises:
        EffcError: E0409, the original cannot take the inputs.
    """
    first, second = Tapped(original, STAGE), Tapped(rewritten, STAGE)
    try:
        expected = first(STAGE, inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        raise EffcError(
            "E0409",
            f"the model cannot take these inputs ({str(error).splitlines()[0]})",
            where=original.program.info.source,
            help="give inputs that it was made for: example_inputs",
        ) from error
    found = second(STAGE, inputs)
    layers = LayerErrors()
    layers.add(first.take(), second.take())
    outputs = [
        {"name": name} | _distance(value, found[name])
        for name, value in expected.items()
        if value.is_floating_point()
    ]
    return outputs, layers


def _distance(x: Tensor, y: Tensor) -> dict[str, float | None]:
    x, y = x.double().flatten(), y.double().flatten()
    difference, size = float((y - x).norm()), float(x.norm())
    cosine = float(x @ y) / (size * float(y.norm())) if size and float(y.norm()) else None
    relative = difference / size if size else (0.0 if difference == 0 else float("inf"))
    return {"relative_error": json_number(relative), "cosine": json_number(cosine)}


def random_inputs(program: Program) -> dict[str, Tensor]:
    """Inputs of a stage "forward", the same on every call.

    Floating-point inputs are normal, integers that reach a table of rows are uniform over its
    rows, and all others (masks) are one.
    """
    stage = program.stages[STAGE]
    generator = torch.Generator().manual_seed(SEED)
    return {
        spec.name: _random(spec, _rows_of_table(program, stage, spec), generator)
        for spec in stage.inputs
        if not spec.optional
    }


def _random(spec: InputSpec, rows: int | None, generator: torch.Generator) -> Tensor:
    sizes = [s if isinstance(s, int) else BATCH if s == "B" else LENGTH for s in spec.shape]
    if spec.dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(spec.dtype)
    if rows is not None:
        return torch.randint(rows, sizes, generator=generator).to(spec.dtype)
    return torch.ones(sizes, dtype=spec.dtype)


def _rows_of_table(program: Program, stage: Stage, spec: InputSpec) -> int | None:
    """How many rows the smallest table has that an integer input selects from."""
    if spec.dtype.is_floating_point or spec.dtype == torch.bool:
        return None
    reached, rows = [stage.placeholder(spec.name)], []
    for node in reached:
        for user in node.users:
            table = _table(user, node)
            if table is not None:
                rows.append(program.weights[str(table.target)].shape[0])
            elif user.op == "call_function" and user not in reached and _keeps_values(user):
                reached.append(user)
    return min(rows, default=None)


def _table(node: fx.Node, indices: fx.Node) -> fx.Node | None:
    """The weight that a node looks rows up in, if `indices` say which."""
    places = _LOOKUPS.get(op_name(node))
    if places is None or node.args[places[1]] is not indices:
        return None
    table = node.args[places[0]]
    return table if isinstance(table, fx.Node) and table.op == "get_attr" else None


def _keeps_values(node: fx.Node) -> bool:
    """Whether the elements come out as they went in, in whatever shape."""
    kept = ("view", "reshape", "unsqueeze", "squeeze", "expand", "to", "contiguous", "clone")
    parts = op_name(node).split(".")
    return len(parts) > 1 and parts[1] in kept
