"""What methods, passes and rewrite rules say of themselves, read without running them.

Methods and passes document themselves where they are written: what is before and after, what it
costs, which paper. Their files import torch, so the texts are read from the sources.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from effc.passes import registry
from effc.spec.schema import MethodInfo

SEMANTICS = {
    "exact": "exact: the results stay the same",
    "rounding": "rounding: the results change by rounding alone",
    "lossy": "lossy: the results change; measure how much with [quality] or effc verify",
}
_STAGES = ("normalize", "raise", "transform", "lower")


@dataclass(frozen=True)
class RuleTopic:
    """A rewrite rule: its name and what it looks for."""

    name: str
    summary: str


@dataclass(frozen=True)
class PassTopic:
    """A pass of the compiler.

    Attributes:
        name: kebab-case.
        stage: "normalize", "raise", "transform" or "lower".
        semantics: a key of `SEMANTICS`.
        summary: what it does, in a sentence or two.
        text: the whole description, with what is before and after.
        rules: what it rewrites, for passes made of rules.
    """

    name: str
    stage: str
    semantics: str
    summary: str
    text: str
    rules: tuple[RuleTopic, ...]


@dataclass(frozen=True)
class MethodTopic:
    """A method that a policy can name: its description and the text of its file."""

    info: MethodInfo
    text: str


@cache
def passes() -> dict[str, PassTopic]:
    """All passes by name, in the order in which they run."""
    locations = (*registry.CANONICAL, *registry.TRANSFORMING, *registry.LOWERING)
    topics = map(_pass_topic, locations)
    return {t.name: t for t in sorted(topics, key=lambda topic: _STAGES.index(topic.stage))}


def method_names() -> list[str]:
    """The names of all methods; none is loaded."""
    return list(dict.fromkeys(n for names in registry.method_locations().values() for n in names))


def methods(name: str) -> list[MethodTopic]:
    """The methods of a name; it may stand in several tables.

    Raises:
        PassError: E0413, a method of another package that cannot be loaded.
    """
    return [
        MethodTopic(registry.method_infos()[table][name], _docstring(_source(names[name])))
        for table, names in registry.method_locations().items()
        if name in names
    ]


def _pass_topic(location: str) -> PassTopic:
    module = _source(location)
    class_name = location.partition(":")[2]
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    cls = classes[class_name]
    members = dict(_members(cls))
    return PassTopic(
        name=_text(members["name"]),
        stage=_attribute(members["stage"]),
        semantics=_attribute(members["semantics"]) if "semantics" in members else "exact",
        summary=_docstring(cls).split("\n\n", 1)[0],
        text=_docstring(module),
        rules=tuple(
            _rule(classes.get(name) or _imported(module, name))
            for name in _called(members.get("rules"))
        ),
    )


def _source(location: str) -> ast.Module:
    """The parsed file of a "module:Class"; the module itself is not imported."""
    spec = importlib.util.find_spec(location.partition(":")[0])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ast.Module(body=[], type_ignores=[])  # an extension of a third party has no text
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _imported(module: ast.Module, name: str) -> ast.ClassDef:
    """A class that a file takes from another one."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            source = _source(f"{node.module}:{name}")
            return next(c for c in source.body if isinstance(c, ast.ClassDef) and c.name == name)
    raise KeyError(name)


def _rule(cls: ast.ClassDef) -> RuleTopic:
    return RuleTopic(_text(dict(_members(cls))["name"]), _docstring(cls).split("\n\n", 1)[0])


def _docstring(node: ast.Module | ast.ClassDef) -> str:
    text = ast.get_docstring(node, clean=False)
    return inspect.cleandoc(text) if text else ""


def _members(cls: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of the class attributes."""
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _text(value: ast.expr) -> str:
    return str(ast.literal_eval(value))


def _attribute(value: ast.expr) -> str:
    """`PassStage.RAISE` -> "raise"."""
    return value.attr.lower() if isinstance(value, ast.Attribute) else ""


def _called(value: ast.expr | None) -> list[str]:
    """`(A(), B())` -> ["A", "B"]."""
    items = value.elts if isinstance(value, ast.Tuple) else []
    return [i.func.id for i in items if isinstance(i, ast.Call) and isinstance(i.func, ast.Name)]
