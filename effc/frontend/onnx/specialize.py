"""A decoder that arrives with its cache, or without one, as the function that it is without one.

    forward(ids [B, T], positions [B, T]) -> logits [B, T, V]

The past is bound to nothing and the padding mask to ones while the graph is translated, so most of
what exporters write about them folds away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir
import torch

from effc.frontend.onnx.builder import Builder, Decoder, aten
from effc.frontend.onnx.elements import initializer, torch_dtype
from effc.frontend.onnx.importer import finish, symbolic_shape, with_settled_sizes
from effc.frontend.onnx.interface import Interface
from effc.frontend.onnx.translate import Translator
from effc.frontend.onnx.values import Size, Value
from effc.ir.program import InputSpec, Program


def specialize(model: onnx_ir.Model, roles: Interface, place: str) -> Program:
    """A decoder without its cache.

    Args:
        model: from the reader.
        roles: what its inputs and outputs are for.
        place: where it came from, for reports.

    Raises:
        ModelError: E0306, E0307, see `Translator.run`.
    """
    return with_settled_sizes(lambda g: _build(g, model, roles, place), place, {})


def _build(g: Builder, model: onnx_ir.Model, roles: Interface, place: str) -> Program:
    values = {str(value.name): value for value in model.graph.inputs}
    given = symbolic_shape(values[roles.ids], "ids") or ("B", "T")
    shape = tuple(n if isinstance(s, str) else s for s, n in zip(given, ("B", "T"), strict=True))
    ids = g.placeholder("ids", torch.int64, shape)
    positions = g.placeholder("positions", torch.int64, shape)
    g.decoder = Decoder(positions)
    inputs: dict[str, Value] = {
        name: initializer(g, value)
        for name, value in values.items()
        if value.const_value is not None
    }
    inputs[roles.ids] = _as(g, ids, values[roles.ids])
    if roles.positions is not None:
        inputs[roles.positions] = _as(g, positions, values[roles.positions])
    row = [g.size(ids, 0), g.size(ids, 1)]
    for name in roles.masks:
        inputs[name] = g.call(aten.ones.default, row, dtype=_dtype(values[name]))
    for name in roles.counters:
        inputs[name] = g.call(aten.arange.default, row[1], dtype=_dtype(values[name]))
    for name, axis in roles.past.items():
        sizes = _past_shape(g, values[name], axis, row[0])
        inputs[name] = g.call(aten.zeros.default, sizes, dtype=_dtype(values[name]))
    if roles.branch is not None:
        inputs[roles.branch] = torch.zeros(_static(values[roles.branch]), dtype=torch.bool)
    outputs = Translator(model, g).run(inputs)
    names = [str(value.name) for value in model.graph.outputs]
    logits = outputs[names.index(roles.logits)]
    specs = tuple(InputSpec(name, torch.int64, shape) for name in ("ids", "positions"))
    program = finish(g, specs, {"logits": logits}, place)
    if roles.dropped:
        program.notes.append(f"left out, a decoder gives logits alone: {', '.join(roles.dropped)}")
    vocabulary = program.stages["forward"].output_node.all_input_nodes[0].meta["val"].shape[-1]
    known = vocabulary if isinstance(vocabulary, int) else None
    program.info = replace(program.info, vocabulary=known)
    return program


def _as(g: Builder, node: Any, value: onnx_ir.Value) -> Value:
    """An int64 input in the element type that the graph wants."""
    dtype = _dtype(value)
    return node if dtype == torch.int64 else g.call(aten.to.dtype, node, dtype)


def _dtype(value: onnx_ir.Value) -> torch.dtype:
    return torch_dtype(value.dtype)  # type: ignore[arg-type]


def _past_shape(g: Builder, value: onnx_ir.Value, axis: int, batch: Size) -> list[Size]:
    """Sizes of a cached tensor that holds nothing yet."""
    sizes: list[Size] = []
    for d, size in enumerate(value.shape or ()):
        if d == axis:
            sizes.append(0)
        elif isinstance(size, int):
            sizes.append(size)
        else:
            # Widths without a number belong to operators that do not read an empty past.
            sizes.append(batch if d == 0 else 1)
    return sizes


def _static(value: onnx_ir.Value) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in value.shape or ()]
