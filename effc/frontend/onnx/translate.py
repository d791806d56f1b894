"""From an ONNX graph to a stage: node by node, in order.

Every ONNX node is translated by the table, or replaced by the body of the function that it stands
for. Subgraphs that are taken for certain are translated in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir
from torch import fx

from effc.diagnostics import ModelError
from effc.frontend.onnx import functions, on_sizes, table
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import element_type, initializer, to_torch
from effc.frontend.onnx.module_paths import ModulePaths
from effc.frontend.onnx.quiet import quiet
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Unsupported, Value

# What Python and numpy raise where a file holds numbers or kinds that nobody expects.
_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

# A function body that uses itself, or nests without end, stops here.
MAX_DEPTH = 32


@dataclass
class Translator:
    """Translates the graphs of one model.

    Attributes:
        model: from the reader.
        builder: where calls go.
        values: what every ONNX value has become.
    """

    model: onnx_ir.Model
    builder: Builder
    values: dict[onnx_ir.Value, Value] = field(default_factory=dict)
    _attributes: list[Mapping[str, onnx_ir.Attr]] = field(default_factory=list)
    _opsets: list[Mapping[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._origins = ModulePaths(self.model)
        self.builder.inline = self.inline
        self._opsets.append(self.model.opset_imports)

    def run(self, inputs: Mapping[str, Value]) -> list[Value]:
        """Translate the main graph.

        Args:
            inputs: graph input -> what stands for it.

        Returns:
            The graph's outputs, in order.

        Raises:
            ModelError: E0307 lists every operator without a translation; E0306 names a node whose
                inputs do not fit together.
        """
        self._refuse_unknown()
        graph = self.model.graph
        # An initializer may stand among the inputs, as its default; it is the one that counts.
        given = [inputs.get(str(value.name)) for value in graph.inputs]
        with quiet():
            return self.graph(graph, given)

    def inline(
        self, graph: onnx_ir.Graph, inputs: Sequence[Value], into: Builder | None = None
    ) -> list[Value]:
        """Translate a subgraph in place, or as another stage."""
        before, self.builder = self.builder, into or self.builder
        try:
            return self.graph(graph, inputs)
        finally:
            self.builder = before

    def graph(
        self, graph: onnx_ir.Graph | onnx_ir.Function, inputs: Sequence[Value]
    ) -> list[Value]:
        """Translate a graph in place and return its outputs."""
        self.values.update(zip(graph.inputs, inputs, strict=False))
        if isinstance(graph, onnx_ir.Graph):
            for value in graph.initializers.values():
                self.values[value] = initializer(self.builder, value)
        for node in graph:
            self._node(node)
        return [self._value(value) for value in graph.outputs]

    def _value(self, value: onnx_ir.Value | None) -> Value:
        if value is None or not value.name:
            return None
        return self.values[value]

    def _node(self, node: onnx_ir.Node) -> None:
        g = self.builder
        before = g.origin, g.opset, g.wanted, g.onnx_dtypes
        if not self._attributes:
            g.origin = self._origins(node)
        g.opset = self._opsets[-1].get(
            node.domain, self._opsets[-1].get(node.domain or "ai.onnx", 1)
        )
        g.wanted = tuple(bool(out.name) for out in node.outputs)
        g.onnx_dtypes = tuple(value.dtype if value is not None else None for value in node.inputs)
        try:
            results = self._translate(node, [self._value(value) for value in node.inputs])
        except Unsupported as reason:
            raise _unsupported([(node, str(reason))], self.model) from None
        except (Mismatch, *_FAULTS) as reason:
            raise ModelError(
                "E0306",
                f"{node.op_type} cannot be applied to its inputs: {_text(reason)}",
                where=_where(self.model, node),
                help="the file is damaged, or an exporter wrote it wrongly; export it again",
            ) from reason
        finally:
            g.origin, g.opset, g.wanted, g.onnx_dtypes = before
        for out, value in zip(node.outputs, results, strict=False):
            self.values[out] = value
            _remember_type(out, value)

    def _translate(self, node: onnx_ir.Node, inputs: list[Value]) -> Sequence[Value]:
        attributes = self._read_attributes(node)
        own = self.model.functions.get(node.op_identifier())
        if own is not None:
            return self._body(own, node, inputs)
        results: Any = None
        if table.plain_domain(node.domain) == "":
            results = on_sizes.translate(self.builder, node.op_type, inputs, attributes)
        if results is None:
            translation = table.find(node.domain, node.op_type)
            if translation is None:
                return self._standard_body(node, inputs)
            _check_call(translation, inputs, attributes)
            results = translation(self.builder, *inputs, **attributes)
        return results if isinstance(results, tuple) else (results,)

    def _standard_body(self, node: onnx_ir.Node, inputs: list[Value]) -> Sequence[Value]:
        version = self.builder.opset
        found = functions.body(
            node, version, [self._type(value) for value in inputs], self._resolved(node)
        )
        if found is None:
            raise Unsupported("there is no translation")
        return self._body(found, node, inputs)

    def _body(
        self, function: onnx_ir.Function, node: onnx_ir.Node, inputs: list[Value]
    ) -> Sequence[Value]:
        if len(self._attributes) >= MAX_DEPTH:
            raise Unsupported(f"functions are nested more than {MAX_DEPTH} deep")
        given = {**function.attributes, **self._resolved(node)}
        self._attributes.append(given)
        self._opsets.append(function.opset_imports or self._opsets[-1])
        padded = [*inputs, *[None] * (len(function.inputs) - len(inputs))]
        try:
            return self.graph(function, padded)
        finally:
            self._attributes.pop()
            self._opsets.pop()

    def _resolved(self, node: onnx_ir.Node) -> dict[str, onnx_ir.Attr]:
        """A node's attributes; those that refer to its function's are looked up."""
        found: dict[str, onnx_ir.Attr] = {}
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                outer = self._attributes[-1] if self._attributes else {}
                given = outer.get(str(attribute.ref_attr_name))
                if given is not None and given.value is not None:
                    found[name] = given
            else:
                found[name] = attribute
        return found

    def _read_attributes(self, node: onnx_ir.Node) -> dict[str, Any]:
        return {name: _plain(attribute) for name, attribute in self._resolved(node).items()}

    def _type(self, value: Value) -> onnx.TypeProto | None:
        """What a function body may ask about an input."""
        if value is None:
            return onnx.TypeProto()
        try:
            dtype, rank = self.builder.dtype(value), self.builder.rank(value)
        except Unsupported:
            return None
        shape = (
            [d if isinstance(d, int) else None for d in self.builder.shape(value)] if rank else []
        )
        return onnx.helper.make_tensor_type_proto(element_type(dtype), shape)

    def _refuse_unknown(self) -> None:
        """List all operators without a translation before any work is done."""
        missing = []
        for node in onnx_ir.traversal.RecursiveGraphIterator(self.model.graph):
            version = self.model.opset_imports.get(node.domain, 1)
            if node.op_identifier() in self.model.functions:
                continue
            if table.support(node.domain, node.op_type, version) == "unsupported":
                missing.append((node, "there is no translation"))
        if missing:
            raise _unsupported(missing, self.model)


def _text(reason: Exception) -> str:
    if isinstance(reason, Mismatch):
        return str(reason)
    return f"{type(reason).__name__}: {str(reason).strip()[:200]}"


def _check_call(
    translation: Translation, inputs: Sequence[Value], attributes: Mapping[str, Any]
) -> None:
    """Refuse attributes that the operator does not have, and inputs too many or too few."""
    try:
        inspect.signature(translation).bind(None, *inputs, **attributes)
    except TypeError as error:
        raise Mismatch(str(error)) from error


def _remember_type(out: onnx_ir.Value, value: Value) -> None:
    """What the file says about a value whose type depends on values."""
    if not isinstance(value, fx.Node) or value.meta.get("val") is not None:
        return
    if out.shape is not None:
        value.meta.setdefault("rank", out.shape.rank())


def _plain(attribute: onnx_ir.Attr) -> Any:
    """An attribute as a plain Python value."""
    value = attribute.value
    if attribute.type == onnx_ir.AttributeType.TENSOR:
        return to_torch(value).clone()
    if attribute.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return value


def _name(node: onnx_ir.Node) -> str:
    return str(node.name or node.outputs[0].name or "unnamed")


def _where(model: onnx_ir.Model, node: onnx_ir.Node) -> str:
    return f"{model.graph.name or 'graph'}: {_name(node)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _unsupported(failures: Sequence[tuple[onnx_ir.Node, str]], model: onnx_ir.Model) -> ModelError:
    """One error for all operators; nodes of one operator and reason stand together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reason in failures:
        domain = f"{node.domain}." if node.domain else ""
        groups.setdefault((f"{domain}{node.op_type}", reason), []).append(_name(node))
    listed = [f"{kind} ({_some(names)}): {why}" for (kind, why), names in groups.items()]
    count = len(groups)
    return ModelError(
        "E0307",
        f"{count} {'operator is' if count == 1 else 'operators are'} not supported: "
        + "; ".join(listed),
        where=str(model.graph.name or "graph"),
        help="export the model with other operators, or add a translation (CONTRIBUTING.md)",
    )
