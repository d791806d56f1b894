"""The hand that writes the graph while ONNX operators are translated.

Every call is typed at once by running the operator on fake tensors, so that passes know shapes
and element types. Where a type depends on values (a shape that is an input of the model), the node
stays untyped: it runs, and passes leave it alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from effc.diagnostics import ModelError
from effc.frontend.onnx.equations import settle
from effc.frontend.onnx.values import (
    Mismatch,
    Size,
    Sizes,
    SizesSettled,
    Unsupported,
    Value,
    object_array,
)
from effc.ir.program import Stage
from effc.ir.weights import Weight, Weights

aten = torch.ops.aten

# Constants up to this size are computed while importing; larger ones when the weight is loaded.
FOLDED_BYTES = 1 << 24

# What the shape functions say when a shape or a branch depends on values.
_DEPENDS_ON_VALUES = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
    symbolic_shapes.GuardOnDataDependentSymNode,
    NotImplementedError,
)

# Calls whose second operand may be a number, and the overload that takes it.
_WITH_NUMBER: dict[Any, Any] = {
    aten.add.Tensor: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.eq.Tensor: aten.eq.Scalar,
    aten.ne.Tensor: aten.ne.Scalar,
    aten.lt.Tensor: aten.lt.Scalar,
    aten.le.Tensor: aten.le.Scalar,
    aten.gt.Tensor: aten.gt.Scalar,
    aten.ge.Tensor: aten.ge.Scalar,
    aten.pow.Tensor_Tensor: aten.pow.Tensor_Scalar,
}
# Arithmetic whose result is the same number whenever its formula is the same.
_EXACT = (operator.add, operator.sub, operator.mul, operator.floordiv)
_COMMUTATIVE = (aten.add.Tensor, aten.mul.Tensor, aten.eq.Tensor, aten.ne.Tensor)


@dataclass
class Origin:
    """Where new nodes come from.

    Attributes:
        path: module path, as far as the ONNX node's name tells it.
        layer: index of the layer.
    """

    path: str = ""
    layer: int | None = None


@dataclass(frozen=True)
class Decoder:
    """A decoder that is being specialized: no past, and every token is real.

    Attributes:
        positions: [B, T] int64, where each token stands in its sequence.
    """

    positions: fx.Node


@dataclass
class Builder:
    """Emits calls into one graph.

    Attributes:
        graph: what is being written.
        weights: the program's state; large constants become weights.
        mode: in which nodes are typed.
        origin: of the nodes made next.
        opset: version of the domain of the ONNX node being translated.
        wanted: which outputs that node wants.
        onnx_dtypes: element types of its inputs as the file declares them.
        inline: translates a subgraph in place, or into a given builder:
            (graph, inputs, builder = this one) -> outputs.
        origin_of_weights: said of the weights, for reports.
        settled: sizes that the file leaves open and its operators settle, see
            `effc.frontend.onnx.equations`.
        suggested: size name -> what the files beside the model say, used when nothing else does.
        decoder: set while a decoder is specialized to a sequence without a past.
        stages: branches and loop bodies that graphs of this model run.
        outer: the builder of the graph that runs the stage being written, None for "forward".
        captured: nodes of that graph -> the inputs of this stage that have their values.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    weights: Weights = field(default_factory=Weights)
    mode: FakeTensorMode = field(default_factory=lambda: FakeTensorMode(shape_env=ShapeEnv()))
    origin: Origin = field(default_factory=Origin)
    opset: int = 0
    wanted: tuple[bool, ...] = (True,)
    onnx_dtypes: tuple[Any, ...] = ()
    inline: Callable[..., list[Value]] | None = None
    origin_of_weights: str = "memory"
    settled: Mapping[str, int | tuple[str, ...]] = field(default_factory=dict)
    suggested: Mapping[str, int] = field(default_factory=dict)
    decoder: Decoder | None = None
    stages: dict[str, Stage] = field(default_factory=dict)
    outer: Builder | None = None
    captured: dict[fx.Node, fx.Node] = field(default_factory=dict)
    _sizes: dict[Any, fx.Node] = field(default_factory=dict)
    _reads: dict[str, fx.Node] = field(default_factory=dict)
    _symbols: dict[str, torch.SymInt] = field(default_factory=dict)
    _made: dict[Hashable, Value] = field(default_factory=dict)

    # Calls

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Emit a call of an operator; compute it at once when all of its arguments are known.

        Raises:
            Mismatch: the operator refuses these arguments whatever their values.
        """
        args, kwargs = self._for_schema(target, args, kwargs)
        known = not _nodes((args, kwargs)) and _small((args, kwargs))
        if known and not _grows(target, args, kwargs):
            return self._compute(target, args, kwargs)
        target, args = _number_operand(target, args)
        args, kwargs = _map(self._operand, args), _map(self._operand, kwargs)
        return self._emit(target, tuple(args), kwargs)

    def emit(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Emit a call that is not to be computed now, since its result is large."""
        return self._emit(target, args, kwargs)

    def arith(self, function: Callable[..., Any], *numbers: Size) -> Size:
        """Arithmetic on sizes with an operator of `effc.ir.opset.BUILTINS`."""
        if all(not isinstance(number, fx.Node) for number in numbers):
            return function(*numbers)
        key = (function, *numbers, *map(type, numbers))
        if key not in self._sizes:
            self._sizes[key] = self._equal(function, self._emit(function, numbers, {}))
        return self._sizes[key]

    def _equal(self, function: Callable[..., Any], node: fx.Node) -> Size:
        """A size that is known to equal the result of `node`, or the node itself."""
        value = node.meta["val"]
        if function not in _EXACT or not isinstance(value, torch.SymInt):
            return node
        expression = value.node.expr
        found = int(expression) if expression.is_number else self._sizes.get(str(expression), node)
        if found is not node:
            self.graph.erase_node(node)
        return self._sizes.setdefault(str(expression), found)

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """A value that several operators need alike: made at its first use, of no layer."""
        if key not in self._made:
            before, self.origin = self.origin, Origin()
            try:
                self._made[key] = make()
            finally:
                self.origin = before
        return self._made[key]

    def items(self, node: fx.Node, count: int) -> list[fx.Node]:
        """The results of a call that returns several."""
        return [self._emit(operator.getitem, (node, i), {}) for i in range(count)]

    def _compute(self, target: Any, args: Any, kwargs: Any) -> Any:
        try:
            with torch.no_grad():
                return target(*args, **kwargs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise Mismatch(_first_line(error)) from error

    def _emit(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
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

    # Stages that this graph runs

    def branch(self) -> Builder:
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

    def unknown(self, dtype: torch.dtype, shape: Sequence[int | None]) -> torch.Tensor:
        """A fake tensor some of whose sizes are only known at run time."""
        sizes = [self.unknown_size() if size is None else size for size in shape]
        with self.mode:
            return torch.empty(sizes, dtype=dtype)

    def node(self, value: Value) -> fx.Node:
        """A tensor as a node, for calls that are not to be computed now."""
        found = self.tensor(value)
        return self.read_constant(found) if isinstance(found, torch.Tensor) else found

    def fake(self, value: Value) -> torch.Tensor | None:
        """The fake tensor of a value, None when its type is only known at run time."""
        found = value.meta.get("val") if isinstance(value, fx.Node) else self.tensor(value)
        if isinstance(found, fx.Node):
            found = found.meta.get("val")
        if found is None or isinstance(found, FakeTensor):
            return found
        return self.mode.from_tensor(found, static_shapes=True)

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
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            leaves = _leaves((args, kwargs))
            if symbolic_shapes.has_free_unbacked_symbols(leaves):
                return None
            if any(map(symbolic_shapes.has_free_symbols, leaves)):
                return self._settle(node, args)
            self.graph.erase_node(node)
            raise Mismatch(_first_line(error)) from error

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

    def _for_schema(self, target: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Make tensors of sizes wherever the operator takes tensors."""
        schema = getattr(target, "_schema", None)
        if schema is None:
            return args, kwargs
        takes = {a.name: "Tensor" in str(a.type) for a in schema.arguments}
        positional = [
            self._materialize(value) if tensor else value
            for value, tensor in zip(args, takes.values(), strict=False)
        ]
        named = {k: self._materialize(v) if takes.get(k) else v for k, v in kwargs.items()}
        return tuple(positional), named

    def _materialize(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._materialize(item) for item in value]
        return self.tensor(value) if isinstance(value, Sizes) else value

    def _operand(self, value: Any) -> Any:
        """A constant tensor as a node that reads it."""
        return self.read_constant(value) if isinstance(value, torch.Tensor) else value

    # What is known of a value

    def typed(self, value: Any, dtype: torch.dtype | None, rank: int) -> Any:
        """A value whose shape depends on values: elements and rank are known all the same."""
        if not isinstance(value, fx.Node) or value.meta.get("val") is not None or dtype is None:
            return value
        value.meta["val"] = self.unknown(dtype, [None] * rank)
        return value

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

    def rank(self, value: Value) -> int:
        """The number of dimensions.

        Raises:
            Unsupported: it is only known at run time.
        """
        if isinstance(value, fx.Node):
            fake = value.meta.get("val")
            found = fake.dim() if isinstance(fake, torch.Tensor) else value.meta.get("rank")
            if found is None:
                raise Unsupported("the rank of an input is only known at run time")
            return found
        if isinstance(value, Sizes):
            return value.items.ndim
        if isinstance(value, torch.Tensor):
            return value.dim()
        raise Unsupported("a tensor is needed, not a sequence or an absent value")

    def dtype(self, value: Value) -> torch.dtype:
        """The element type.

        Raises:
            Unsupported: it is not known.
        """
        if isinstance(value, fx.Node):
            fake = value.meta.get("val")
            found = fake.dtype if isinstance(fake, torch.Tensor) else value.meta.get("dtype")
            if found is None:
                raise Unsupported("the element type of an input is only known at run time")
            return found
        if isinstance(value, Sizes | torch.Tensor):
            return value.dtype
        raise Unsupported("a tensor is needed, not a sequence or an absent value")

    def size(self, value: Value, dim: int) -> Size:
        """One size: a number, or a node that has it at run time."""
        rank = self.rank(value)
        if not -rank <= dim < rank:
            raise Mismatch(f"dimension {dim} of a tensor of rank {rank}")
        dim %= rank
        if isinstance(value, Sizes):
            return value.items.shape[dim]
        if isinstance(value, torch.Tensor):
            return value.shape[dim]
        assert isinstance(value, fx.Node)
        fake = value.meta.get("val")
        if isinstance(fake, torch.Tensor) and isinstance(fake.shape[dim], int):
            return fake.shape[dim]
        known = fake.shape[dim] if isinstance(fake, torch.Tensor) else None
        # Equal sizes are read once, from whichever value had them first.
        key = (value, dim) if known is None else str(known.node.expr)
        if key not in self._sizes:
            self._sizes[key] = self._emit(aten.sym_size.int, (value, dim), {})
        return self._sizes[key]

    def shape(self, value: Value) -> list[Size]:
        """All sizes."""
        return [self.size(value, dim) for dim in range(self.rank(value))]

    def constant(self, value: Value) -> torch.Tensor | None:
        """The constant behind a value, None when it is computed at run time."""
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, Sizes) and all(isinstance(item, int) for item in value.flat()):
            return torch.tensor(value.items.astype(np.int64)).to(value.dtype)
        if isinstance(value, fx.Node) and value.op == "get_attr":
            return self.weights[str(value.target)].load()
        return None

    def ints(self, value: Value | list[int] | int) -> list[Size]:
        """The elements of an integer tensor of rank 0 or 1, or of an attribute."""
        if isinstance(value, int):
            return [value]
        if isinstance(value, list):
            return [item for part in value for item in self.ints(part)]
        if isinstance(value, Sizes):
            return value.flat()
        known = self.constant(value)
        if known is not None:
            return [int(item) for item in known.flatten().tolist()]
        if self.rank(value) == 0:
            return [self._emit(aten.item.default, (value,), {})]
        count = self.size(value, 0)
        if not isinstance(count, int):
            raise Unsupported("a list of sizes has a length that is only known at run time")
        chosen = [self.call(aten.select.int, value, 0, i) for i in range(count)]
        return [self._emit(aten.item.default, (item,), {}) for item in chosen]

    def int(self, value: Value | int) -> Size:
        """The one element of an integer tensor."""
        found = self.ints(value)
        if len(found) != 1:
            raise Mismatch(f"one number is needed, found {len(found)}")
        return found[0]

    def known_ints(self, value: Value | list[int] | int, what: str) -> list[int]:
        """As `ints`, where the translation itself depends on them.

        Raises:
            Unsupported: they are computed at run time.
        """
        found = [] if value is None else self.ints(value)
        if any(not isinstance(item, int) for item in found):
            raise Unsupported(f"{what} is not a constant")
        return found  # type: ignore[return-value]

    # Making values

    def sizes(self, items: Any, dtype: torch.dtype = torch.int64) -> Value:
        """An integer tensor from its elements (list, number or object array)."""
        array = items if isinstance(items, np.ndarray) else object_array(items)
        found = Sizes(array, dtype)
        constant = self.constant(found)
        return found if constant is None else constant

    def tensor(self, value: Value) -> torch.Tensor | fx.Node:
        """A value as a tensor.

        Raises:
            Unsupported: it is a sequence or absent.
        """
        if isinstance(value, torch.Tensor | fx.Node):
            return value
        if not isinstance(value, Sizes):
            raise Unsupported("a tensor is needed, not a sequence or an absent value")
        made = [
            self.call(aten.scalar_tensor.default, item, dtype=value.dtype) for item in value.flat()
        ]
        if value.items.ndim == 0:
            return made[0]
        stacked = self.call(aten.stack.default, made)
        shape = list(value.items.shape)
        return stacked if len(shape) == 1 else self.call(aten.reshape.default, stacked, shape)

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
                    f"no tensor has the sizes {list(shape)} ({_first_line(error)})",
                    where=f"input {name}",
                    help="the file is damaged; export the model again",
                ) from error
        elif dtype is not None:
            node.meta["dtype"] = dtype
        return node


def _name(target: Any) -> str:
    """The operator without namespace and overload, e.g. "linear"."""
    packet = getattr(target, "overloadpacket", target)
    return str(getattr(packet, "__name__", "value")).strip("_")


def _nodes(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return found


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_map(function, item) for item in value)
    if isinstance(value, dict):
        return {key: _map(function, item) for key, item in value.items()}
    return function(value)


def _leaves(value: Any) -> list[Any]:
    """Everything in nested arguments that may have symbolic sizes."""
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    if isinstance(value, dict):
        return _leaves(list(value.values()))
    return [value] if isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat) else []


def _small(value: Any) -> bool:
    leaves = [leaf for leaf in _leaves(value) if isinstance(leaf, torch.Tensor)]
    return sum(leaf.nbytes for leaf in leaves) <= FOLDED_BYTES


def _grows(target: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of small constants has a large result, told by its shape function."""
    args, kwargs = _map(_without_values, args), _map(_without_values, kwargs)
    if "device" not in kwargs and not any(isinstance(a, torch.Tensor) for a in _leaves(args)):
        kwargs = {**kwargs, "device": "meta"}
    try:
        result = target(*args, **kwargs)
    except Exception:  # shapes that depend on values are those of small inputs
        return False
    found = [leaf for leaf in _leaves(result) if isinstance(leaf, torch.Tensor)]
    return sum(leaf.numel() * leaf.itemsize for leaf in found) > FOLDED_BYTES


def _without_values(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def _number_operand(target: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """A one-element constant as a Python number, where that means the same."""
    if target not in _WITH_NUMBER or len(args) < 2:
        return target, args
    left, right, *rest = args
    if isinstance(left, torch.Tensor) and target in _COMMUTATIVE:
        left, right = right, left
    fake = left.meta.get("val") if isinstance(left, fx.Node) else None
    fits = (
        isinstance(right, torch.Tensor)
        and isinstance(fake, torch.Tensor)
        and right.numel() == 1
        and right.dtype == fake.dtype
        and right.dim() <= fake.dim()
    )
    if not fits:
        return target, args
    return _WITH_NUMBER[target], (left, right.item(), *rest)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
