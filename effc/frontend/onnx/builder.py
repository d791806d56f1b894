"""The hand of a translation: calls, what is known of values, and values made from others.

Translation is partial evaluation, and this is where it happens: a call of constants is computed,
arithmetic on sizes stays arithmetic, and only the rest is emitted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

from effc.frontend.onnx.emitter import Emitter, Origin
from effc.frontend.onnx.folding import (
    first_line,
    grows,
    is_small,
    map_values,
    nodes_of,
    number_operand,
)
from effc.frontend.onnx.values import Mismatch, Size, Sizes, Unsupported, Value, object_array

aten = torch.ops.aten

# Arithmetic whose result is the same number whenever its formula is the same.
_EXACT = (operator.add, operator.sub, operator.mul, operator.floordiv)


@dataclass(frozen=True)
class Decoder:
    """A decoder that is being specialized: no past, and every token is real.

    Attributes:
        positions: [B, T] int64, where each token stands in its sequence.
    """

    positions: fx.Node


@dataclass
class Builder(Emitter):
    """What translations of operators are written with.

    Attributes:
        opset: version of the domain of the ONNX node being translated.
        wanted: which outputs that node wants.
        onnx_dtypes: element types of its inputs as the file declares them.
        inline: translates a subgraph in place, or into a given builder:
            (graph, inputs, builder = this one) -> outputs.
        decoder: set while a decoder is specialized to a sequence without a past.
    """

    opset: int = 0
    wanted: tuple[bool, ...] = (True,)
    onnx_dtypes: tuple[Any, ...] = ()
    inline: Callable[..., list[Value]] | None = None
    decoder: Decoder | None = None

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Emit a call of an operator; compute it at once when all of its arguments are known.

        Raises:
            Mismatch: the operator refuses these arguments whatever their values.
        """
        args, kwargs = self._for_schema(target, args, kwargs)
        known = not nodes_of((args, kwargs)) and is_small((args, kwargs))
        if known and not grows(target, args, kwargs):
            return self._compute(target, args, kwargs)
        target, args = number_operand(target, args)
        args, kwargs = map_values(self._operand, args), map_values(self._operand, kwargs)
        return self.emit(target, *args, **kwargs)

    def arith(self, function: Callable[..., Any], *numbers: Size | float) -> Size:
        """Arithmetic on sizes with an operator of `effc.ir.opset.BUILTINS`."""
        if all(not isinstance(number, fx.Node) for number in numbers):
            return function(*numbers)
        key = (function, *numbers, *map(type, numbers))
        if key not in self._sizes:
            self._sizes[key] = self._equal(function, self.emit(function, *numbers))
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

    def _compute(self, target: Any, args: Any, kwargs: Any) -> Any:
        try:
            with torch.no_grad():
                return target(*args, **kwargs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise Mismatch(first_line(error)) from error

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
        key = str(known.node.expr) if isinstance(known, torch.SymInt) else (value, dim)
        if key not in self._sizes:
            self._sizes[key] = self.emit(aten.sym_size.int, value, dim)
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
            return [self.emit(aten.item.default, value)]
        count = self.size(value, 0)
        if not isinstance(count, int):
            raise Unsupported("a list of sizes has a length that is only known at run time")
        chosen = [self.call(aten.select.int, value, 0, i) for i in range(count)]
        return [self.emit(aten.item.default, item) for item in chosen]

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
