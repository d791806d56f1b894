"""The one mutator of graphs.

Passes never touch `torch.fx` nodes directly: they ask a `GraphRewriter`, which computes the type
of every new node (`meta["val"]`), carries over where it came from, and tells the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from effc.diagnostics import InternalError, PassError
from effc.ir.journal import Change, Journal
from effc.ir.program import InputSpec, Program, Stage
from effc.ir.weights import Weight


def fake_mode_of(stage: Stage) -> FakeTensorMode:
    """The fake mode that the stage's types live in.

    Raises:
        InternalError: the stage was read from an artifact and has no types to rewrite with.
    """
    for node in stage.graph.nodes:
        if isinstance(node.meta.get("val"), FakeTensor):
            return node.meta["val"].fake_mode
    raise InternalError("E0901", f"stage {stage.name!r} carries no types and cannot be rewritten")


def typed(value: Any) -> Any:
    """The fake values behind a (nested) argument."""
    return fx.map_arg(value, lambda node: node.meta["val"])


def is_dead(node: fx.Node) -> bool:
    """Whether nobody reads a node and it has no effect."""
    if node._erased or node.users or node.op in ("placeholder", "output"):
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is None or not schema.is_mutable


class GraphRewriter:
    """Edits one stage of a program.

    Args:
        program: the program that owns the stage and its weights.
        stage: what to edit.
        journal: where changes are recorded.
        made_by: the name of the pass, stamped on new nodes.
    """

    def __init__(self, program: Program, stage: Stage, journal: Journal, made_by: str) -> None:
        self.program = program
        self.stage = stage
        self.graph = stage.graph
        self.made_by = made_by
        self._journal = journal
        self._mode = fake_mode_of(stage)

    @contextmanager
    def before(self, node: fx.Node) -> Iterator[None]:
        """New nodes go in front of `node` and inherit its path and layer."""
        self._origin = node
        with self.graph.inserting_before(node):
            yield

    @contextmanager
    def after(self, node: fx.Node) -> Iterator[None]:
        """New nodes go behind `node` and inherit its path and layer."""
        self._origin = node
        with self.graph.inserting_after(node):
            yield

    def call(
        self, target: Callable[..., Any], *args: Any, origin: fx.Node | None = None, **kwargs: Any
    ) -> fx.Node:
        """Insert a call; its type is what the operator's shape function says.

        Raises:
            PassError: the shape function refuses these arguments.
        """
        packet = getattr(target, "overloadpacket", target)
        node = self.graph.create_node("call_function", target, args, kwargs, packet.__name__)
        try:
            with self._mode:
                node.meta["val"] = target(*typed(args), **typed(kwargs))
        except Exception as error:
            text = f"{target} refuses its arguments in pass {self.made_by}: {error}"
            where = self.graph_place(self._origin)
            self.graph.erase_node(node)
            raise PassError("E0404", text, where=where) from error
        return self._stamp(node, origin)

    def weight(self, name: str) -> fx.Node:
        """Insert a read of weight `name`, which the program must hold.

        The read belongs to no layer: several may share a weight.
        """
        weight = self.program.weights[name]
        node = self.graph.create_node("get_attr", self.program.weights.ties.get(name, name))
        with self._mode:
            node.meta["val"] = torch.empty(weight.shape, dtype=weight.dtype)
        self._stamp(node, None)
        node.meta["layer"] = None
        return node

    def add_weight(self, name: str, weight: Weight) -> None:
        """Add an entry to the program's state.

        Raises:
            PassError: the name is taken.
        """
        if name in self.program.weights:
            raise PassError("E0404", f"weight {name!r} exists already", where=self.made_by)
        self.program.weights.set(name, weight)
        self._record("weight", name, weight.origin)

    def add_input(self, spec: InputSpec, value: Any) -> fx.Node:
        """Append an input to the stage; `value` is its fake value."""
        last = [node for node in self.graph.nodes if node.op == "placeholder"][-1]
        with self.graph.inserting_after(last):
            node = self.graph.placeholder(spec.name)
        node.meta["val"] = value
        self.stage.inputs = (*self.stage.inputs, spec)
        self._record("input", spec.name)
        return node

    def add_output(self, name: str, node: fx.Node) -> None:
        """Append a result to the stage."""
        output = self.stage.output_node
        output.args = ((*output.args[0], node),)  # type: ignore[misc]
        self.stage.outputs = (*self.stage.outputs, name)
        self._record("output", name, node.name)

    def set_outputs(self, results: dict[str, fx.Node]) -> None:
        """Replace all results of the stage."""
        self.stage.output_node.args = (tuple(results.values()),)
        self.stage.outputs = tuple(results)
        self._record("output", ", ".join(results))

    def set_argument(self, node: fx.Node, index: int, value: Any) -> None:
        """Change one positional argument of a node."""
        node.update_arg(index, value)
        self._record("argument", node.name, f"{index} = {value}")

    def retarget(self, node: fx.Node, target: Callable[..., Any]) -> None:
        """Call another operator with the same arguments."""
        node.target = target
        self._record("replace", node.name, str(target))

    def retype(self, node: fx.Node) -> None:
        """Compute the type of a node again after its arguments changed."""
        with self._mode:
            node.meta["val"] = node.target(*typed(node.args), **typed(node.kwargs))  # type: ignore[operator]

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Let all users of `old` use `new`; erase `old` and what only it read."""
        old.replace_all_uses_with(new, propagate_meta=False)
        self._record("replace", old.name, f"{new.name} = {new.target}")
        self._erase_dead(old)

    def erase(self, node: fx.Node) -> None:
        """Remove a node without users, and what only it read."""
        self._record("erase", node.name, str(node.target))
        self._erase_dead(node)

    def erase_unused(self) -> None:
        """Remove everything that nobody reads and that has no effect."""
        for node in reversed(list(self.graph.nodes)):
            if is_dead(node):
                self.erase(node)

    def _erase_dead(self, node: fx.Node) -> None:
        pending = [node]
        while pending:
            dead = pending.pop()
            producers = dead.all_input_nodes
            self.graph.erase_node(dead)
            pending += filter(is_dead, producers)

    def mark(self, node: fx.Node, key: str, value: object) -> None:
        """Set metadata that lowering records, such as the chosen kernel."""
        if node.meta.get(key) != value:
            node.meta[key] = value
            self._record("argument", node.name, f"{key} = {value}")

    def graph_place(self, node: fx.Node) -> str:
        """How messages name a node."""
        path = node.meta.get("path") or "?"
        return f"{self.stage.name}.{node.name} (from {path})"

    def _stamp(self, node: fx.Node, origin: fx.Node | None) -> fx.Node:
        source = (origin or self._origin).meta
        node.meta["path"] = source.get("path", "")
        node.meta["layer"] = source.get("layer")
        node.meta["made_by"] = self.made_by
        self._record("insert", node.name, str(node.target))
        return node

    def _record(self, kind: str, node: str, detail: str = "") -> None:
        self._journal.record(Change(self.made_by, self.stage.name, kind, node, detail))
