"""Replace the nodes of the domain "effc" by operators that stock onnxruntime has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import tensor_adapters
from torch import Tensor

from effc.export.onnx.placeholders import DOMAIN

# Placeholder -> the function that translates it.
TRANSLATIONS: dict[str, str] = {
    "attention": "effc.kernels.attention.onnx:translate",
    "gated_activation": "effc.kernels.gated_activation.onnx:translate",
    "quantized_embedding": "effc.kernels.quantized_embedding.onnx:translate",
    "quantized_linear": "effc.kernels.quantized_linear.onnx:translate",
    "rms_norm": "effc.kernels.rms_norm.onnx:translate",
    "linear": "effc.export.onnx.linear:translate",
    "attend_past": "effc.export.onnx.cache:attend_past",
    "positions": "effc.export.onnx.positions:positions",
    "rotary": "effc.export.onnx.positions:rotary",
}

# Inputs that a placeholder may have; trailing ones are left out when absent.
_INPUTS = {
    "attention": 5,
    "attend_past": 10,
    "linear": 3,
    "quantized_embedding": 4,
    "quantized_linear": 5,
}


# Where a node's metadata says which module of the model it belongs to.
MODULE = "effc_module"


@dataclass
class Graph:
    """A graph being lowered; see `effc.kernels.onnx.OnnxGraph`.

    Attributes:
        model: the model.
        opset: version of the standard operators.
        contrib: whether operators of com.microsoft may be used.
        grouped: whether attention over a cache is `GroupQueryAttention`.
        notes: what the user should know.
        heads: H of attention over a cache, 0 without one.
    """

    model: ir.Model
    opset: int
    contrib: bool
    grouped: bool
    notes: list[str] = field(default_factory=list)
    heads: int = 0
    _constants: dict[object, ir.Value] = field(default_factory=dict)
    _place: ir.Node | None = None
    _module: str | None = None

    @contextmanager
    def before(self, node: ir.Node, module: str | None = None) -> Iterator[None]:
        """New operators go in front of this node, and belong to the module if one is given."""
        outer = self._place, self._module
        self._place, self._module = node, module
        try:
            yield
        finally:
            self._place, self._module = outer

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int = 1,
        domain: str = "",
        **attrs: Any,
    ) -> Any:
        """Add an operator; its result, or a tuple of `outputs` of them."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        node = ir.node(op_type, given, attrs, domain=domain, num_outputs=outputs)
        if self._module is not None:
            node.meta[MODULE] = self._module
        assert self._place is not None
        self.model.graph.insert_before(self._place, node)
        infer(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def ints(self, *values: int) -> ir.Value:
        """A constant int64 vector."""
        return self._constant(("ints", values), np.array(values, np.int64))

    def index(self, value: int) -> ir.Value:
        """A constant int64 without dimensions."""
        return self._constant(("index", value), np.array(value, np.int64))

    def octets(self, *values: int) -> ir.Value:
        """A constant uint8 vector."""
        return self._constant(("octets", values), np.array(values, np.uint8))

    def scalar(self, value: float, like: ir.Value | torch.dtype) -> ir.Value:
        """A constant of an element type, or that of `like`, without dimensions."""
        dtype = like if isinstance(like, torch.dtype) else self.dtype(like)
        values = torch.tensor(value, dtype=dtype).numpy()
        return self._constant(("scalar", str(value), dtype), values)

    def cast(self, x: ir.Value, dtype: torch.dtype) -> ir.Value:
        """`x` in another element type, or `x` itself."""
        if self.dtype(x) == dtype:
            return x
        to = tensor_adapters.from_torch_dtype(dtype)
        result = self.op("Cast", x, to=int(to))
        result.dtype, result.shape = to, x.shape
        return result

    def dtype(self, x: ir.Value) -> torch.dtype:
        """Element type."""
        assert x.dtype is not None, f"{x.name} has no type"
        return tensor_adapters.to_torch_dtype(x.dtype)

    def shape(self, x: ir.Value) -> list[int | str]:
        """Sizes; the names of those that vary."""
        assert x.shape is not None, f"{x.name} has no shape"
        return [d if isinstance(d, int) else str(d) for d in x.shape]

    def weight(self, x: ir.Value) -> Tensor | None:
        """The values of a constant, None if it is computed."""
        held = x.const_value
        if held is None:
            return None
        raw = getattr(held, "raw", None)
        return raw.detach() if isinstance(raw, Tensor) else torch.from_numpy(held.numpy())

    def stored(
        self,
        source: ir.Value,
        form: str,
        make: Callable[[], Tensor],
        shape: Sequence[int],
        dtype: str,
    ) -> ir.Value:
        """A constant made from another one when the file is written."""
        name = f"{source.name}.{form}"
        return self.constant(name, make, shape, ir.DataType[dtype])

    def constant(
        self, name: str, make: Callable[[], Tensor], shape: Sequence[int], dtype: ir.DataType
    ) -> ir.Value:
        """A named constant whose values are made when the file is written."""
        held = self.model.graph.initializers
        if name in held:
            return held[name]

        def load() -> ir.TensorProtocol:
            values = make().contiguous()
            if dtype.bitwidth < 8:
                return ir.PackedTensor(values.numpy(), dtype, shape=shape, name=name)
            numpy = values.reshape(list(shape)).numpy()
            # torch packs codes as uint8, whether they have a sign or not.
            signed = dtype == ir.DataType.INT8
            return ir.tensor(numpy.view(np.int8) if signed else numpy, name=name)

        sizes = ir.Shape(shape)
        lazy = ir.LazyTensor(load, dtype, sizes, name=name)
        value = ir.Value(name=name, shape=sizes, type=ir.TensorType(dtype), const_value=lazy)
        held.add(value)
        return value

    def note(self, text: str) -> None:
        """Tell the user; the same text is told once."""
        if text not in self.notes:
            self.notes.append(text)

    def _constant(self, key: object, values: np.ndarray) -> ir.Value:
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            tensor = ir.tensor(values, name=name)
            value = ir.Value(
                name=name,
                shape=ir.Shape(values.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self.model.graph.initializers.add(value)
            self._constants[key] = value
        return self._constants[key]


_LOGICAL = ("And", "Equal", "Less", "LessOrEqual", "Not", "Or")

# Operator -> the input whose element type its result has; all others have that of the first.
_TYPED_BY = {"DequantizeLinear": 1, "GatherBlockQuantized": 2, "Where": 1}


def infer(node: ir.Node) -> None:
    """The element types of new values, where translations ask for them."""
    source = node.inputs[_TYPED_BY.get(node.op_type, 0)] if node.inputs else None
    dtype = None if source is None else source.dtype
    if node.op_type in _LOGICAL:
        dtype = ir.DataType.BOOL
    elif node.op_type == "Shape":
        dtype = ir.DataType.INT64
    if dtype is not None:
        for output in node.outputs:
            output.dtype = dtype


def lower(g: Graph) -> None:
    """Replace every node of our domain, in order."""
    for node in list(g.model.graph):
        if node.domain != DOMAIN:
            continue
        module, _, name = TRANSLATIONS[node.op_type].partition(":")
        translate = getattr(import_module(module), name)
        inputs = list(node.inputs)
        inputs += [None] * (_INPUTS.get(node.op_type, 0) - len(inputs))
        attributes = {k: _python(k, a) for k, a in node.attributes.items()}
        with g.before(node, attributes.pop("name", None)):
            results = translate(g, *inputs, **attributes)
        replace(node, results if isinstance(results, tuple) else (results,))


def _python(name: str, attribute: ir.Attr) -> Any:
    value = attribute.value
    if name in _FLAGS:
        return bool(value)
    if name == "dtype":
        return tensor_adapters.to_torch_dtype(ir.DataType(value))
    return value


_FLAGS = ("causal", "interleaved", "round_first")


def replace(node: ir.Node, results: Sequence[ir.Value]) -> None:
    """Let other values take the place of a node's results, with their names and types."""
    graph = node.graph
    assert graph is not None
    for old, new in zip(node.outputs, results, strict=True):
        new.type, new.shape = old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        if new.producer() is not None:
            new.name = old.name
    graph.remove(node, safe=True)
