"""Stages that other stages run: branches and loop bodies.

A higher-order operator takes `StageRef`s where torch takes functions:

    cond(predicate, then, else, operands)                       -> results of one of the two
    while_loop(more, body, carried, additional)                 -> carried, after the last round
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from effc.ir.program import Program, Stage, StageRef

_BRANCH, _PREDICATE = "branch", "predicate"

# Operator -> what each argument is.
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "cond": ("node", _BRANCH, _BRANCH, "nodes"),
    "while_loop": (_PREDICATE, _BRANCH, "nodes", "nodes"),
}


def is_higher_order(node: fx.Node) -> bool:
    """Whether a node runs other stages."""
    return isinstance(node.target, torch._ops.HigherOrderOperator)


def stage_refs(value: Any) -> Iterator[StageRef]:
    """All references in nested arguments."""
    if isinstance(value, StageRef):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from stage_refs(item)
    elif isinstance(value, Mapping):
        yield from stage_refs(list(value.values()))


def misfit(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Why arguments do not fit an operator as far as stages are concerned, None when they do."""
    if not isinstance(target, torch._ops.HigherOrderOperator):
        found = next(stage_refs([args, kwargs]), None)
        return found and f"it runs no stages, and is given the stage {found.name!r}"
    expected = _PARAMETERS[str(target)]
    if kwargs or len(args) != len(expected) or not all(map(_is_like, args, expected)):
        return f"the arguments of {target} are {', '.join(expected)}"
    return None


def _is_like(value: Any, expected: str) -> bool:
    if expected in (_BRANCH, _PREDICATE):
        return isinstance(value, StageRef) and value.predicate == (expected == _PREDICATE)
    if expected == "nodes":
        return isinstance(value, tuple) and all(isinstance(item, fx.Node) for item in value)
    return isinstance(value, fx.Node)


def call_problem(program: Program, node: fx.Node) -> str | None:
    """What is wrong with the stages that a node runs, None when nothing is.

    They must exist and take and give as many values as the operator passes on.
    """
    problem = misfit(node.target, node.args, node.kwargs)
    if problem or not is_higher_order(node):
        return problem
    for ref in stage_refs(node.args):
        if ref.name not in program.stages:
            return f"there is no stage {ref.name!r}"
    given, counts = _passed(node)
    for ref, results in zip(stage_refs(node.args), counts, strict=True):
        stage = program.stages[ref.name]
        if len(stage.inputs) != given:
            return f"stage {ref.name!r} has {len(stage.inputs)} inputs and is given {given}"
        if results is not None and len(stage.outputs) != results:
            return f"stage {ref.name!r} has {len(stage.outputs)} results, {results} are needed"
    first, second = (program.stages[ref.name].outputs for ref in stage_refs(node.args))
    if str(node.target) == "cond" and len(first) != len(second):
        return f"the branches have {len(first)} and {len(second)} results"
    return None


def _passed(node: fx.Node) -> tuple[int, tuple[int | None, int | None]]:
    """How many values each of the two stages gets, and must give back."""
    if str(node.target) == "cond":
        return len(node.args[3]), (None, None)  # type: ignore[arg-type]
    carried, additional = node.args[2:]
    return len(carried) + len(additional), (1, len(carried))  # type: ignore[arg-type]


def cycle(program: Program) -> list[str] | None:
    """Stages that run one another in a circle, None when there are none."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done or name not in program.stages:
            return None
        found = (follow(inner, [*path, name]) for inner in called(program.stages[name]))
        circle = next(filter(None, found), None)
        done.add(name)
        return circle

    return next(filter(None, (follow(name, []) for name in program.stages)), None)


def called(stage: Stage) -> list[str]:
    """Names of the stages that a stage runs, in order of first use."""
    refs = (ref for node in stage.graph.nodes for ref in stage_refs([node.args, node.kwargs]))
    return list(dict.fromkeys(ref.name for ref in refs))
