"""The `torch` frontend: a module and an example of its inputs -> program.

Dimension 0 of every tensor input is the batch; dimension 1 of integer inputs is the sequence.
A module of (ids, positions) -> [B, T, V] is taken for a decoder and gets a cache if its graph
allows one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from effc.diagnostics import ModelError
from effc.frontend import capture
from effc.frontend.base import evaluating
from effc.ir.program import InputSpec, ModelInfo, Program
from effc.ir.untrusted import RESERVED

_IDS = ("input_ids", "ids", "tokens")
_POSITIONS = ("position_ids", "positions")


class TorchFrontend:
    """Modules that are no language models of the transformers library."""

    name = "torch"

    def accepts(self, source: Any) -> bool:
        """Any `nn.Module`."""
        return isinstance(source, torch.nn.Module)

    def load(
        self,
        source: Any,
        *,
        dtype: torch.dtype | None = None,
        example_inputs: Any = None,
        dynamic_shapes: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Program:
        """Capture a module in evaluation mode.

        Args:
            source: the module; its parameters are shared, not copied.
            dtype: must be None or the module's own; convert the module instead.
            example_inputs: tuple of positional inputs or dict of named ones, tensors only.
            dynamic_shapes: overrides which dimensions are dynamic, in torch.export's form by name.

        Raises:
            ModelError: E0306 when there is no example or the capture fails.
        """
        given = _named(source, example_inputs)
        _refuse_conversion(source, dtype)
        shapes = dict(dynamic_shapes) if dynamic_shapes else _default_shapes(given)
        named = {name: _example(value, shapes.get(name)) for name, value in given.items()}
        with evaluating(source) as module:
            exported = capture.export(module, named, shapes, type(source).__name__)
        return _program(source, exported, named, shapes)


def _named(module: torch.nn.Module, example: Any) -> dict[str, torch.Tensor]:
    place = type(module).__name__
    if example is None:
        raise ModelError(
            "E0306",
            "a module needs an example of its inputs to be captured",
            where=place,
            help="pass example_inputs=(tensor, ...) or a dict of tensors",
        )
    if isinstance(example, torch.Tensor):
        example = (example,)
    if isinstance(example, Mapping):
        named = dict(example)
    else:
        names = list(inspect.signature(module.forward).parameters)
        named = dict(zip(names, example, strict=False))
        if len(named) != len(tuple(example)):
            raise ModelError(
                "E0306",
                f"the example has {len(tuple(example))} inputs, the module takes {len(names)}",
                where=place,
                help=f"pass example_inputs for: {', '.join(names) or 'nothing'}",
            )
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                "E0306",
                f"input {name!r} is a {type(value).__name__}, not a tensor",
                where=place,
                help="wrap the module so that it takes tensors only",
            )
    return named


def _example(value: torch.Tensor, dims: Any) -> torch.Tensor:
    """A copy whose dynamic sizes are above one.

    Sizes of one would be taken for constants, and one tensor given twice for one input.
    """
    dynamic = {d for d, size in _items(dims) if size is not None}
    small = [d in dynamic and size == 1 for d, size in enumerate(value.shape)]
    return value.detach().repeat([2 if few else 1 for few in small])


def _items(dims: Any) -> Iterable[tuple[int, Any]]:
    """Dimension -> symbol, in either of the forms that torch.export takes."""
    if isinstance(dims, Mapping):
        return dims.items()
    return enumerate(dims or ())


def _is_integer(value: torch.Tensor) -> bool:
    return not (
        value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool
    )


def _refuse_conversion(module: torch.nn.Module, dtype: torch.dtype | None) -> None:
    own = {p.dtype for p in module.parameters() if p.dtype.is_floating_point}
    if dtype is not None and own - {dtype}:
        raise ModelError(
            "E0304",
            f"target.dtype is {dtype}, the module's parameters are {', '.join(map(str, own))}",
            where=type(module).__name__,
            help="convert the module with .to(dtype) before compiling it",
        )


def _default_shapes(named: Mapping[str, torch.Tensor]) -> dict[str, dict[int, Any]]:
    batch = torch.export.Dim("B", min=1)
    tokens = torch.export.Dim("T", min=1)
    shapes: dict[str, dict[int, Any]] = {}
    for name, value in named.items():
        dims: dict[int, Any] = {0: batch} if value.dim() else {}
        if _is_integer(value) and value.dim() > 1:
            dims[1] = tokens
        shapes[name] = dims
    return shapes


def _program(
    module: torch.nn.Module,
    exported: torch.export.ExportedProgram,
    named: Mapping[str, torch.Tensor],
    shapes: Mapping[str, Any],
) -> Program:
    names = list(named)
    ids = next((n for n in names if n in _IDS), None)
    positions = next((n for n in names if n in _POSITIONS), None)
    outputs = _output_names(exported)
    decoder = len(names) == 2 and ids and positions and outputs == ("output",)
    renamed = {ids: "ids", positions: "positions"} if decoder else {}
    specs = tuple(
        InputSpec(renamed.get(n) or _free(n), v.dtype, _symbolic(v, shapes.get(n)))
        for n, v in named.items()
    )
    captured = capture.to_stage(exported, "forward", specs, ("logits",) if decoder else outputs)
    for node in captured.stage.graph.nodes:
        if node.name in RESERVED:
            node._rename(_free(node.name))
    dtypes = [p.dtype for p in module.parameters() if p.dtype.is_floating_point]
    dtype = dtypes[0] if dtypes else torch.float32
    vocabulary = _last_size(captured.stage.output_node) if decoder else None
    info = ModelInfo("module", type(module).__name__, vocabulary=vocabulary, dtype=dtype)
    return Program({"forward": captured.stage}, captured.weights, info)


def _free(name: str) -> str:
    """The name, with an underscore behind it where programs cannot use it: `input_`."""
    taken = name in RESERVED or fx.Graph().placeholder(name).name != name
    return f"{name}_" if taken else name


def _last_size(output: fx.Node) -> int | None:
    """V of logits [B, T, V]."""
    value = output.all_input_nodes[0].meta["val"]
    size = value.shape[-1]
    return size if isinstance(size, int) else None


def _symbolic(value: torch.Tensor, dims: Any) -> tuple[int | str, ...]:
    named = {d: getattr(size, "__name__", f"d{d}") for d, size in _items(dims) if size is not None}
    return tuple(named.get(d, int(size)) for d, size in enumerate(value.shape))


def _output_names(exported: torch.export.ExportedProgram) -> tuple[str, ...]:
    """ "output" for one tensor, keys of a mapping, else positions."""
    spec = exported.call_spec.out_spec
    count = len(exported.graph_signature.user_outputs)
    if spec is not None and spec.num_children == 0 and count == 1:
        return ("output",)
    keys = getattr(spec, "context", None)
    if dataclasses.is_dataclass(getattr(spec, "type", None)) and isinstance(keys, list):
        keys = keys[0] if keys and isinstance(keys[0], list) else keys  # fields, fields of None
    if isinstance(keys, list) and len(keys) == count and all(isinstance(k, str) for k in keys):
        return tuple(keys)
    return tuple(str(i) for i in range(count))
