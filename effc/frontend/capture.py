"""From `torch.export` to a stage: parameters become reads of named weights.

The captured graph keeps composite operators (linear, attention, norms), is functional, and knows
for each node the module and the layer it came from.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from effc.diagnostics import ModelError
from effc.ir.program import InputSpec, Stage
from effc.ir.types import layer_of
from effc.ir.weights import Weight, Weights

_ASSERTIONS = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten.sym_constrain_range_for_size.default",
    "aten.sym_constrain_range.default",
)
# Operators that have two names go by the one that passes look for.
_ALIASES = {
    torch.ops.aten.multiply.Tensor: torch.ops.aten.mul.Tensor,
    torch.ops.aten.divide.Tensor: torch.ops.aten.div.Tensor,
    torch.ops.aten.subtract.Tensor: torch.ops.aten.sub.Tensor,
    torch.ops.aten.concat.default: torch.ops.aten.cat.default,
    torch.ops.aten.concatenate.default: torch.ops.aten.cat.default,
}
_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


@dataclass(frozen=True)
class Captured:
    """A stage and the weights it reads, by the names of the module's own state.

    Attributes:
        stage: the graph.
        weights: of this stage, and of the stages captured before it from the same module.
        names: identity of a tensor -> the name it is kept under.
    """

    stage: Stage
    weights: Weights
    names: dict[int, str]


def export(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    dynamic_shapes: Mapping[str, Any],
    place: str,
) -> ExportedProgram:
    """Run `torch.export` and make the result functional.

    Raises:
        ModelError: E0306, with the first lines of the reason.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # PyTorch warns about its own use of what it deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            exported = torch.export.export(
                module, (), dict(example), dynamic_shapes=dict(dynamic_shapes), strict=False
            )
            if _mutates(exported.graph):
                exported = exported.run_decompositions({})
            _refuse_writes(exported, place)
    except ModelError:
        raise
    except Exception as error:  # torch.export raises whatever the traced code raises
        if isinstance(error.__cause__, ModelError):
            raise error.__cause__ from None
        raise ModelError(
            "E0306",
            f"torch.export cannot capture this model ({_reason(error)})",
            where=place,
            help="models whose control flow depends on values cannot become one graph; "
            "rewrite that part with torch.where or torch.cond",
        ) from error
    return exported


def _reason(error: Exception) -> str:
    """The start of an exception's message; for sizes that would not do, which ones."""
    first, *details = [" ".join(line.split()) for line in str(error).strip().splitlines()] or [""]
    if first.startswith("Constraints violated"):
        guards = [line.removeprefix("- ") for line in details if line.startswith("- ")]
        guard = next(iter(guards), "").rpartition("generated guard ")[2]
        guard = re.sub(r"L\['(\w+)'\]\.size\(\)\[(\d)\]", r"\1.size(\2)", guard)
        return f"the graph would hold for some sizes of its inputs only: {guard}"[:200]
    return f"{type(error).__name__}: {first}"[:300]


def _refuse_writes(exported: ExportedProgram, place: str) -> None:
    """Programs have no memory: what a module writes to its buffers or inputs would be lost.

    Raises:
        ModelError: E0306, naming what is written to.
    """
    signature = exported.graph_signature
    written = [
        *(f"the buffer {name!r}" for name in signature.buffers_to_mutate.values()),
        *(f"the input {name!r}" for name in signature.user_inputs_to_mutate.values()),
    ]
    if written:
        raise ModelError(
            "E0306",
            f"the model writes to {', '.join(written)} in place, and nothing would keep it",
            where=place,
            help="write to a copy and return it, or keep that part outside of the module",
        )


def _mutates(graph: fx.Graph) -> bool:
    return any(
        isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        for node in graph.nodes
    )


def to_stage(
    exported: ExportedProgram,
    name: str,
    inputs: tuple[InputSpec, ...],
    outputs: tuple[str, ...],
    *,
    prefix: str = "",
    origin: str = "memory",
    beside: Captured | None = None,
) -> Captured:
    """Convert an exported program into a stage.

    Args:
        exported: from `export`.
        name: of the stage.
        inputs: what the user inputs are, in order.
        outputs: names of the results, in order.
        prefix: attribute path of the wrapper around the model, cut from all names.
        origin: said of the weights, for reports.
        beside: a stage of the same module; both then read one state.
    """
    builder = _Builder(exported, name, inputs, prefix, origin)
    if beside is not None:
        builder.weights, builder.names = beside.weights, beside.names
    results = builder.build()
    builder.graph.output(tuple(results))
    return Captured(Stage(name, builder.graph, inputs, outputs), builder.weights, builder.names)


class _Builder:
    def __init__(
        self,
        exported: ExportedProgram,
        stage: str,
        inputs: tuple[InputSpec, ...],
        prefix: str,
        origin: str,
    ) -> None:
        self.graph = fx.Graph()
        self.weights = Weights()
        self.names: dict[int, str] = {}
        self._exported = exported
        self._stage = stage
        self._inputs = iter(inputs)
        self._prefix = prefix
        self._origin = origin
        self._reads: dict[str, fx.Node] = {}

    def build(self) -> list[fx.Node]:
        signature = self._exported.graph_signature
        state = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        placeholders = {
            n: self._state(n, state[n.name]) if n.name in state else self._input(n)
            for n in self._exported.graph.nodes
            if n.op == "placeholder"
        }
        return self._inline(self._exported.graph_module, placeholders)

    def _input(self, node: fx.Node) -> fx.Node:
        spec = next(self._inputs)
        placeholder = self.graph.placeholder(spec.name)
        placeholder.meta["val"] = node.meta["val"]
        return placeholder

    def _state(self, node: fx.Node, name: str) -> Callable[[], fx.Node]:
        """A read is created at its first use, so that it stands where it belongs."""
        kept = self._keep(name.removeprefix(self._prefix), self._tensor(name))

        def read() -> fx.Node:
            if kept not in self._reads:
                made = self.graph.create_node("get_attr", kept)
                made.meta.update(val=node.meta["val"], path=kept.rpartition(".")[0], layer=None)
                self._reads[kept] = made
            return self._reads[kept]

        return read

    def _keep(self, name: str, tensor: torch.Tensor) -> str:
        """The name under which a tensor is kept; another name of a known one becomes a tie."""
        key = tensor.data_ptr() if tensor.numel() else id(tensor)
        key = hash((key, tuple(tensor.shape), tensor.stride()))
        if key not in self.names:
            # Constants are counted anew in every stage.
            kept = self.names[key] = f"{self._stage}.{name}" if name in self.weights else name
            self.weights.set(kept, Weight.of(tensor, self._origin))
        kept = self.names[key]
        if kept != name and name not in self.weights:
            self.weights.ties[name] = kept
        return kept

    def _tensor(self, name: str) -> torch.Tensor:
        state = self._exported.state_dict
        found = state[name] if name in state else self._exported.constants[name]
        assert isinstance(found, torch.Tensor), "lifted constants are tensors"
        return found

    def _inline(self, module: fx.GraphModule, values: dict[fx.Node, Any]) -> list[Any]:
        """Copy the calls of a graph module, entering the context managers' submodules."""

        def value_of(node: fx.Node) -> Any:
            found = values[node]
            return found() if callable(found) else found

        for node in module.graph.nodes:
            if node.op == "output":
                return [fx.map_arg(arg, value_of) for arg in node.args[0]]
            if node.op == "get_attr" and not _is_module(module, node):
                values[node] = self._constant(module, node)
            if node.op != "call_function" or str(node.target) in _ASSERTIONS:
                continue
            if getattr(node.target, "__name__", "") in _INLINED:
                values[node] = self._context(module, node, value_of)
            elif _is_plain_copy(node):
                values[node] = value_of(node.args[1])  # type: ignore[arg-type]
            elif isinstance(items := _items(node, values), list):
                values[node] = items[node.args[1]]  # type: ignore[index]
            else:
                values[node] = self._copy(node, value_of)
        raise ModelError("E0306", "the captured graph has no output")

    def _context(
        self, module: fx.GraphModule, node: fx.Node, value_of: Callable[[fx.Node], Any]
    ) -> list[Any]:
        """Gradient mode and autocast around inference change nothing once autocast is off."""
        at = next(i for i, arg in enumerate(node.args) if _is_submodule_ref(module, arg))
        if getattr(node.target, "__name__", "") == "wrap_with_autocast" and node.args[2]:
            raise ModelError("E0306", "the model turns autocast on inside its forward")
        inner = getattr(module, str(node.args[at].target))  # type: ignore[union-attr]
        formal = [n for n in inner.graph.nodes if n.op == "placeholder"]
        actual = [fx.map_arg(arg, value_of) for arg in node.args[at + 1 :]]
        return self._inline(inner, dict(zip(formal, actual, strict=True)))

    def _constant(self, module: fx.GraphModule, node: fx.Node) -> fx.Node:
        name = self._keep(f"constant.{node.target}", getattr(module, str(node.target)))
        made = self.graph.create_node("get_attr", name)
        made.meta.update(val=node.meta["val"], path="", layer=None)
        return made

    def _copy(self, node: fx.Node, value_of: Callable[[fx.Node], Any]) -> fx.Node:
        args, kwargs = fx.map_arg((node.args, node.kwargs), value_of)
        target = _ALIASES.get(node.target, node.target)  # type: ignore[arg-type,call-overload]
        made = self.graph.create_node("call_function", target, args, kwargs, short_name(node))
        made.meta["val"] = node.meta.get("val")
        made.meta["path"] = path = module_path(node, self._prefix)
        made.meta["layer"] = layer_of(path)
        return made


def _items(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The list behind a `getitem` of an inlined call, else None."""
    if getattr(node.target, "__name__", "") != "getitem":
        return None
    return values.get(node.args[0])  # type: ignore[arg-type]


def _is_plain_copy(node: fx.Node) -> bool:
    """A copy, left behind by an assignment in place, that changes neither shape nor type."""
    if str(node.target) != "aten.copy.default":
        return False
    target, source = (arg.meta["val"] for arg in node.args[:2])  # type: ignore[union-attr]
    return target.shape == source.shape and target.dtype == source.dtype


def _is_module(module: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(getattr(module, str(node.target), None), torch.nn.Module)


def _is_submodule_ref(module: fx.GraphModule, arg: Any) -> bool:
    return isinstance(arg, fx.Node) and arg.op == "get_attr" and _is_module(module, arg)


def short_name(node: fx.Node) -> str:
    """The operator without namespace and overload, e.g. "linear"."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target.overloadpacket.__name__.lstrip("_")
    return getattr(node.target, "__name__", "value").lstrip("_")


def module_path(node: fx.Node, prefix: str) -> str:
    """The attribute path of the module that a captured node came from."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    path = path.removeprefix("L['self'].")
    if path.startswith("_empty") or path + "." == prefix:
        return ""
    return path.removeprefix(prefix)
