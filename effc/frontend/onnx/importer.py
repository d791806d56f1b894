"""From an ONNX model to a program with one stage, "forward".

    forward(*graph inputs) -> graph outputs

The stage means what the file says. `effc.frontend.onnx.frontend` specializes decoders on the way.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import fx

from effc.diagnostics import ModelError
from effc.frontend.onnx.boundary import port
from effc.frontend.onnx.branches import forget, reachable
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.translate import Translator
from effc.frontend.onnx.values import Content, SizesSettled, Value
from effc.ir.program import InputSpec, ModelInfo, Program, Stage
from effc.ir.untrusted import RESERVED

STAGE = "forward"


def import_model(
    model: onnx_ir.Model, source: str, suggested: Mapping[str, int] | None = None
) -> Program:
    """Translate a model as it is.

    Args:
        model: from the reader.
        source: where it came from, for reports.
        suggested: size name -> what the files beside the model say, used when nothing else does.

    Raises:
        ModelError: E0306, E0307, see `Translator.run`.
    """

    def build(g: Builder) -> Program:
        specs, inputs = declare_inputs(g, open_inputs(model.graph))
        outputs = Translator(model, g).run(inputs)
        names = unique_names(str(value.name) for value in model.graph.outputs)
        return finish(g, specs, dict(zip(names, outputs, strict=True)), source)

    return with_settled_sizes(build, source, suggested or {})


def with_settled_sizes(
    build: Callable[[Builder], Program], source: str, suggested: Mapping[str, int]
) -> Program:
    """Build a program, and again with what its operators say about sizes left open.

    Raises:
        ModelError: E0306 when they contradict one another.
    """
    settled: dict[str, int | tuple[str, ...]] = {}
    while True:
        try:
            program = build(Builder(origin_of_weights=source, settled=settled, suggested=suggested))
        except SizesSettled as found:
            if not found.sizes.keys() - settled.keys():
                raise ModelError(
                    "E0306",
                    f"the operators contradict one another about sizes: {found}",
                    where=source,
                    help="export the model again, with these sizes fixed",
                ) from None
            settled |= found.sizes
            continue
        program.notes += [
            f"{name} is {value}: the graph holds for no other size"
            for name, value in settled.items()
            if isinstance(value, int)
        ]
        return program


def open_inputs(graph: onnx_ir.Graph) -> list[onnx_ir.Value]:
    """The inputs that a caller gives: those without an initializer."""
    return [value for value in graph.inputs if value.name not in graph.initializers]


def declare_inputs(
    g: Builder, values: Iterable[onnx_ir.Value]
) -> tuple[tuple[InputSpec, ...], dict[str, Value]]:
    """Placeholders for graph inputs.

    Returns:
        What the inputs are, and the placeholder of each by its ONNX name.
    """
    values = list(values)
    names = unique_names(str(value.name) for value in values)
    specs, nodes = [], {}
    for value, name in zip(values, names, strict=True):
        spec, nodes[str(value.name)] = declare_input(g, value, name)
        specs.append(spec)
    return tuple(specs), nodes


def declare_input(g: Builder, value: onnx_ir.Value, name: str) -> tuple[InputSpec, fx.Node]:
    """One placeholder; what may be a list or absent has no type that an operator could use."""
    given = port(value)
    if not given.sequence and not given.optional:
        shape = symbolic_shape(value, name)
        if shape is not None:
            shape = tuple(_settled(g, size) for size in shape)
        node = g.placeholder(name, given.dtype, shape)
        return InputSpec(name, given.dtype, shape or ()), node
    node = g.placeholder(name, given.dtype, None)
    sizes = given.shape
    if sizes is not None:
        sizes = [size if isinstance(size, int) else None for size in sizes]
    node.meta["content"] = Content(given.dtype, sizes, given.sequence)
    kind = "sequence" if given.sequence else "tensor"
    return InputSpec(name, given.dtype, (), optional=given.optional, kind=kind), node


def _settled(g: Builder, size: int | str) -> int | str:
    known = g.settled.get(size) if isinstance(size, str) else None
    return known if isinstance(known, int) else size


def symbolic_shape(value: onnx_ir.Value, name: str) -> tuple[int | str, ...] | None:
    """Sizes as numbers and identifiers; a size without a name gets one of its own."""
    if value.shape is None or not isinstance(value.type, onnx_ir.TensorType):
        return None
    found: list[int | str] = []
    for d, size in enumerate(value.shape):
        if isinstance(size, int):
            found.append(size)
        else:
            text = re.sub(r"\W+", "_", str(size.value)) if size.value else f"{name}_{d}"
            found.append(text if text.isidentifier() else f"size_{text}")
    return tuple(found)


def finish(
    g: Builder, specs: tuple[InputSpec, ...], results: Mapping[str, Value], source: str
) -> Program:
    """The program of a finished graph.

    Raises:
        ModelError: E0306 when the graph would hold for one size of its inputs only.
    """
    _refuse_fixed_sizes(g, source)
    g.graph.output(tuple(_result(g, value) for value in results.values()))
    g.graph.eliminate_dead_code()
    for node in g.graph.nodes:
        if node.name in RESERVED:
            node._rename(f"{node.name}_")
    stages = reachable({STAGE: Stage(STAGE, g.graph, specs, tuple(results)), **g.stages})
    for stage in stages.values():
        forget(stage.graph)
    read = {name for stage in stages.values() for name in stage.weight_names()}
    for name in [name for name in g.weights if name not in read]:
        g.weights.remove(name)
    dtypes = [w.dtype for w in g.weights.values() if w.dtype.is_floating_point]
    dtype = max(set(dtypes), key=dtypes.count) if dtypes else torch.float32
    info = ModelInfo("onnx", source, dtype=dtype)
    return Program(stages, g.weights, info)


def _result(g: Builder, value: Value) -> Any:
    if isinstance(value, list):
        return [_result(g, item) for item in value]
    if value is None:
        return None
    found = g.tensor(value)
    return g.read_constant(found) if isinstance(found, torch.Tensor) else found


def _refuse_fixed_sizes(g: Builder, source: str) -> None:
    env = g.mode.shape_env
    assert env is not None
    for name, symbol in g._symbols.items():
        if env.replace(symbol.node.expr).is_number:
            raise ModelError(
                "E0306",
                f"the graph holds for {name} = {env.replace(symbol.node.expr)} only, "
                "although the file says that this size varies",
                where=source,
                help="export the model with this size fixed, or correctly for all of them",
            )


def unique_names(names: Iterable[str]) -> list[str]:
    """Names as identifiers of a program, each once."""
    taken: set[str] = set()
    found = []
    for index, name in enumerate(names):
        text = re.sub(r"\W+", "_", name).strip("_") or f"value_{index}"
        if not text.isidentifier() or keyword.iskeyword(text):
            text = f"value_{text}"
        probe = fx.Graph().placeholder(text).name
        text = text if probe == text and text not in RESERVED else f"{text}_"
        while text in taken:
            text = f"{text}_{index}"
        taken.add(text)
        found.append(text)
    return found


def source_text(source: Any) -> str:
    """How reports name a source."""
    return str(source) if isinstance(source, str | Path) else "an ONNX model in memory"
