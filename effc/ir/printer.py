"""Programs as runnable Python.

One text serves people, golden files and execution: what is printed is what runs. Each stage is a
function of its weights and inputs; a line is one node, its type and origin in a comment. With the
comments the text says all there is to a stage, and `effc.ir.read_text` reads it back.
"""

from __future__ import annotations

import builtins
import keyword
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from effc.diagnostics import InternalError
from effc.ir.program import InputSpec, Program, Stage, StageRef
from effc.ir.types import annotation, layer_of, symbol_names
from effc.ir.untrusted import RESERVED

_INFIX: dict[Callable[..., Any], str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.floordiv: "//",
    operator.truediv: "/",
    operator.mod: "%",
    operator.pow: "**",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.and_: "&",
    operator.or_: "|",
}
_PREFIX: dict[Callable[..., Any], str] = {operator.neg: "-", operator.not_: "not "}


def print_program(program: Program) -> str:
    """All stages as one Python text."""
    return "\n\n".join(print_stage(stage) for stage in program.stages.values())


def print_stage(
    stage: Stage,
    *,
    comments: bool = True,
    release: bool = False,
    callee: Callable[[fx.Node], str] | None = None,
) -> str:
    """One stage as a Python function.

    Args:
        stage: what to print.
        comments: say what inputs and results are, append types, module paths and kernels.
        release: delete every value after its last use, as execution wants it.
        callee: how to name a node's target; by default the operator's public name.
    """
    names = symbol_names(stage) if comments else {}
    dying = last_uses(stage) if release else {}
    lines = [f"def {_identifier(stage.name)}({', '.join(_parameters(stage))}):"]
    if comments:
        lines += [f"    # {text}" for text in _signature(stage)]
    for node in stage.graph.nodes:
        if node.op == "placeholder":
            continue
        line = "    " + _statement(node, callee or callee_name)
        if node in dying:
            line += "; del " + ", ".join(_identifier(dead.name) for dead in dying[node])
        if comments and node.op != "output":
            line += _comment(node, names)
        lines.append(line)
    return "\n".join(lines) + "\n"


def last_uses(stage: Stage) -> dict[fx.Node, list[fx.Node]]:
    """Node -> the values that nobody reads after it (inputs belong to the caller)."""
    seen: set[fx.Node] = set()
    dying: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(stage.graph.nodes):
        fresh = [n for n in node.all_input_nodes if n not in seen and n.op != "placeholder"]
        seen.update(fresh)
        if fresh and node.op != "output":
            dying[node] = fresh
        if node.op == "call_function" and not node.users:
            dying.setdefault(node, []).append(node)
    return dying


def callee_name(node: fx.Node) -> str:
    """The public name of a call's target, e.g. `torch.ops.aten.linear.default`."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return f"torch.ops.{target}"
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"torch.ops.higher_order.{target}"
    module = getattr(target, "__module__", None)
    name = getattr(target, "__name__", None)
    if module in ("_operator", "operator"):
        return f"operator.{name}"
    if module == "math" or getattr(math, str(name), None) is target:
        return f"math.{name}"
    if module == "builtins" or getattr(builtins, str(name), None) is target:
        return str(name)
    if getattr(torch, str(name), None) is target:
        return f"torch.{name}"
    raise InternalError("E0901", f"target {target} of node {node.name} has no public name")


def _parameters(stage: Stage) -> list[str]:
    return ["weights", *(_identifier(stage.placeholder(spec.name).name) for spec in stage.inputs)]


def _signature(stage: Stage) -> list[str]:
    """What a signature in Python does not say: one text per input, and the names of the results."""
    inputs = [
        f"{_manner(spec)}{spec.role} {spec.name}: "
        f"[{', '.join(map(str, spec.shape))}] {str(spec.dtype).removeprefix('torch.')}"
        for spec in stage.inputs
    ]
    return [*inputs, f"results {', '.join(stage.outputs)}"]


def _manner(spec: InputSpec) -> str:
    """How an input is given, where it is not simply a tensor."""
    kind = "" if spec.kind == "tensor" else f"{spec.kind} "
    return f"{'optional ' if spec.optional else ''}{kind}"


def _statement(node: fx.Node, callee: Callable[[fx.Node], str]) -> str:
    if node.op == "output":
        return f"return {_literal(tuple(node.args[0]))}"  # type: ignore[arg-type]
    name = _identifier(node.name)
    if node.op == "get_attr":
        return f"{name} = weights[{node.target!r}]"
    if node.op == "call_function":
        return f"{name} = {_call(node, callee)}"
    raise InternalError("E0901", f"node {node.name} has the unexpected kind {node.op!r}")


def _call(node: fx.Node, callee: Callable[[fx.Node], str]) -> str:
    target: Any = node.target
    if target is operator.getitem:
        return f"{_literal(node.args[0])}[{_index(node.args[1])}]"
    args = [_literal(arg) for arg in node.args]
    if target in _INFIX and len(args) == 2:
        # A negative base would lose its sign to the power: -2 ** n is -(2 ** n).
        left = f"({args[0]})" if args[0].startswith("-") else args[0]
        return f"{left} {_INFIX[target]} {args[1]}"
    if target in _PREFIX:
        return f"{_PREFIX[target]}{args[0]}"
    args += [f"{_identifier(key)}={_literal(value)}" for key, value in node.kwargs.items()]
    return f"{callee(node)}({', '.join(args)})"


def _index(value: Any) -> str:
    if not isinstance(value, slice):
        return _literal(value)
    first, last = ("" if part is None else _literal(part) for part in (value.start, value.stop))
    return f"{first}:{last}" + ("" if value.step is None else f":{_literal(value.step)}")


def _literal(value: Any) -> str:
    if isinstance(value, fx.Node):
        return _identifier(value.name)
    if isinstance(value, StageRef):
        table = "predicates" if value.predicate else "stages"
        return f"{table}.{_identifier(value.name)}(weights)"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_literal(item)}, " for item in value).rstrip(" ") + ")"
    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return str(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    raise InternalError("E0901", f"a {type(value).__name__} is no literal of a program: {value!r}")


def _comment(node: fx.Node, names: dict[str, str]) -> str:
    path = str(node.meta.get("path") or "")
    parts = [annotation(node, names), path]
    layer = node.meta.get("layer")
    if layer is not None and layer != layer_of(path):
        parts.append(f"layer={layer}")
    if kernel := node.meta.get("kernel"):
        parts.append(f"kernel={kernel}")
    text = "  ".join(part for part in parts if part)
    return f"  # {text}" if text else ""


def _identifier(name: str) -> str:
    word = name.isidentifier() and not keyword.iskeyword(name)
    if not word or name.startswith("__") or name in RESERVED:
        raise InternalError("E0901", f"{name!r} cannot be a name in a program")
    return name
