"""Calls of a graph, each with its type, and the inputs, weights and sizes that they read.

Every call is typed at once by running the operator on fake tensors, so that passes know shapes
and element types. Where a type depends on values (a shape that is an input of the model), the node
stays untyped: it runs, and passes leave it alone.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from effc.diagnostics import ModelError
from effc.frontend.onnx.equations import settle
from effc.frontend.onnx.folding import first_line, leaves_of
from effc.frontend.onnx.values import Mismatch, SizesSettled, Value
from effc.ir.program import Stage
from effc.ir.weights import Weight, Weights

# What the shape functions say when a shape or a branch depends on values.
_DEPENDS_ON_VALUES = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
    symbolic_shapes.GuardOnDataDependentSymNode,
    NotImplementedError,
)

# What they say about operands that do not fit; some of torch's decompositions assert.
_REFUSED = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)


@dataclass
class Origin:
    """Where new nodes come from.

    Attributes:
        path: module path, as far as the ONNX node's name tells it.
        layer: index of the layer.
    """

    path: str = ""
    layer: int | None = None


@dataclass
class Emitter:
    """Writes one graph.

    Attributes:
        graph: what is being written.
        weights: the program's state; large constants become weights.
        mode: in which nodes are typed.
        origin: of the nodes made next.
        origin_of_weights: said of the weights, for reports.
        settled: sizes that the file leaves open and its operators settle, see
            `effc.frontend.onnx.equations`.
        suggested: size name -> what the files beside the model say, used when nothing else does.
        stages: branches and loop bodies that graphs of this model run.
        outer: what writes the graph that runs the stage being written, None for "forward".
        captured: nodes of that graph -> the inputs of this stage that have their values.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    weights: Weights = field(default_factory=Weights)
    mode: FakeTensorMode = field(default_factory=lambda: FakeTensorMode(shape_env=ShapeEnv()))
    origin: Origin = field(default_factory=Origin)
    origin_of_weights: str = "memory"
    settled: Mapping[str, int | tuple[str, ...]] = field(default_factory=dict)
    suggested: Mapping[str, int] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    outer: Emitter | None = None
    captured: dict[fx.Node, fx.Node] = field(default_factory=dict)
    _reads: dict[str, fx.Node] = field(default_factory=dict)
    _symbols: dict[str, torch.SymInt] = field(default_factory=dict)
    _sizes: dict[Any, Any] = field(default_factory=dict)
    _made: dict[Hashable, Value] = field(default_factory=dict)

    def emit(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Emit a call, also of what is known: its result may be large."""
        if self.outer is not None:
            args, kwargs = fx.map_arg((args, kwargs), self.own)
        node = self.graph.create_node("call_function", target, args, kwargs, _name(target))
        node.meta["path"], node.meta["layer"] = self.origin.path, self.origin.layer
        node.meta["val"] = self._type(node)
        return node

    def emit_as(self, value: Any, target: Any, *args: Any) -> fx.Node:
        """Emit a call whose fake result is known to the caller, None when nobody knows it."""
        args = fx.map_arg(args, self.own)
        node = self.graph.create_node("call_function", target, args, {}, _name(target))
        node.meta.update(path=self.origin.path, layer=self.origin.layer, val=value)
        return node

    def items(self, node: fx.Node, count: int) -> list[fx.Node]:
        """The results of a call that returns several."""
        return [self.emit(operator.getitem, node, i) for i in range(count)]

    def branch(self) -> Self:
        """A builder of a stage that this graph runs."""
        new = {"captured": {}, "_sizes": {}, "_reads": {}, "_made": {}}
        return replace(self, graph=fx.Graph(), outer=self, **new)

    def own(self, node: fx.Node) -> fx.Node:
        """A node of this graph with the value of `node`, which may belong to an outer one."""
        if node.graph is self.graph:
            return node
        if node.op == "get_attr":
            return self.weight(str(node.target))
        if node not in self.captured:
            self.captured[node] = self.input(node.name, node.meta)
        return self.captured[node]

    def input(self, name: str, meta: Mapping[str, Any]) -> fx.Node:
        """One more input of a stage, of the type of another node."""
        first = next((n for n in self.graph.nodes if n.op != "placeholder"), None)
        with self.graph.inserting_before(first):
            made = self.graph.placeholder(name)
        made.target = made.name
        made.meta.update({**meta, "path": "", "layer": None})
        return made

    def placeholder(self, name: str, dtype: torch.dtype | None, shape: Any) -> fx.Node:
        """An input; `shape` holds numbers and names of sizes, None when even the rank is open."""
        node = self.graph.placeholder(name)
        node.meta.update(path="", layer=None, val=None)
        if shape is not None and dtype is not None:
            sizes = [s if isinstance(s, int) else self.symbol(s) for s in shape]
            try:
                with self.mode:
                    node.meta["val"] = torch.empty(sizes, dtype=dtype)
            except RuntimeError as error:
                raise ModelError(
                    "E0306",
                    f"no tensor has the sizes {list(shape)} ({first_line(error)})",
                    where=f"input {name}",
                    help="the file is damaged; export the model again",
                ) from error
        elif dtype is not None:
            node.meta["dtype"] = dtype
        return node

    def symbol(self, name: str) -> torch.SymInt | int:
        """A size that is only known at run time; one name is one size.

        Hints are distinct and above one, so that no two sizes are taken for equal.
        """
        known = self.settled.get(name)
        if isinstance(known, int):
            return known
        if known is not None:
            return sum(self.symbol(part) for part in known)
        if name not in self._symbols:
            env = self.mode.shape_env
            assert env is not None
            source = ConstantSource(f"onnx_{len(self._symbols)}")
            hint = 11 + 13 * len(self._symbols)
            symbol = env.create_symbol(hint, source, dynamic_dim=DimDynamic.DYNAMIC)
            made = env.create_symintnode(symbol, hint=hint, source=source)
            assert isinstance(made, torch.SymInt)
            self._symbols[name] = made
        return self._symbols[name]

    def weight(self, name: str) -> fx.Node:
        """A read of a weight."""
        if name not in self._reads:
            weight = self.weights[name]
            node = self.graph.create_node("get_attr", name, name="weight")
            with self.mode:
                node.meta["val"] = torch.empty(weight.shape, dtype=weight.dtype)
            node.meta.update(path=self.origin.path, layer=None)
            self._reads[name] = node
        return self._reads[name]

    def read_constant(self, tensor: torch.Tensor) -> fx.Node:
        """A constant as a weight of its own."""
        name = f"constant.{sum(1 for known in self.weights if known.startswith('constant.'))}"
        self.weights.set(name, Weight.of(tensor.contiguous(), "a constant of the graph"))
        return self.weight(name)

    def typed(self, value: Any, dtype: torch.dtype | None, rank: int) -> Any:
        """A value whose shape depends on values: elements and rank are known all the same."""
        if not isinstance(value, fx.Node) or value.meta.get("val") is not None or dtype is None:
            return value
        value.meta["val"] = self.unknown(dtype, [None] * rank)
        return value

    def unknown(self, dtype: torch.dtype, shape: Sequence[int | None]) -> torch.Tensor:
        """A fake tensor some of whose sizes are only known at run time."""
        sizes = [self.unknown_size() if size is None else size for size in shape]
        with self.mode:
            return torch.empty(sizes, dtype=dtype)

    def unknown_size(self) -> torch.SymInt:
        """A size of which nothing is known but that it is not negative."""
        size = self.unknown_number()
        torch._check(size >= 0)
        return size

    def unknown_number(self) -> torch.SymInt:
        """An integer of which nothing is known."""
        env = self.mode.shape_env
        assert env is not None
        return env.create_unbacked_symint()

    def _type(self, node: fx.Node) -> Any:
        """The fake result of a node, None when it depends on values."""
        if any(n.meta.get("val") is None for n in node.all_input_nodes):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        try:
            # Without the dispatcher written in Python, some operators take symbolic sizes for
            # the numbers behind them, and fix them.
            with self.mode, enable_python_dispatcher():
                return node.target(*args, **kwargs)  # type: ignore[operator]
        except _DEPENDS_ON_VALUES:
            return None
        except _REFUSED as error:
            leaves = leaves_of((args, kwargs))
            if symbolic_shapes.has_free_unbacked_symbols(leaves):
                return None
            if any(map(symbolic_shapes.has_free_symbols, leaves)):
                return self._settle(node, args)
            self.graph.erase_node(node)
            raise Mismatch(first_line(error)) from error

    def _settle(self, node: fx.Node, args: tuple[Any, ...]) -> None:
        """Start again if a call tells what a size is that the file leaves open.

        Otherwise the call stays without a type: whether it holds is known at run time.
        """
        names = {
            str(symbol.node.expr): name
            for name, symbol in self._symbols.items()
            if isinstance(symbol, torch.SymInt) and symbol.node.expr.is_symbol
        }
        found = settle(node.target, args, names, self.suggested)
        if found:
            raise SizesSettled(found)


def _name(target: Any) -> str:
    """The operator without namespace and overload, e.g. "linear"."""
    packet = getattr(target, "overloadpacket", target)
    return str(getattr(packet, "__name__", "value")).strip("_")
