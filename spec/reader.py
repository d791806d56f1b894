"""From plain data to a `Policy`: every key known, every value checked, all mistakes collected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from effc.spec.checks import wrong
from effc.spec.choices import Choices
from effc.spec.findings import Findings
from effc.spec.fragments import Fragment
from effc.spec.places import KeyPath
from effc.spec.schema import (
    BOUNDS,
    Choice,
    DraftSpec,
    KvRule,
    MethodTable,
    Policy,
    QualitySpec,
    QuantizeRule,
    Rule,
    StreamSpec,
    TargetSpec,
    TokensRule,
)
from effc.spec.tables import DRAFT, METHODS, RULE, SETTINGS, STORE, TABLES
from effc.spec.wording import either, shown

AnyRule = TypeVar("AnyRule", bound=Rule)
Settings = TypeVar("Settings", TargetSpec, QualitySpec, StreamSpec)


def read_policy(
    fragment: Fragment, methods: MethodTable, *, source: str | None, text: str
) -> Policy:
    """Check all of a policy.

    Args:
        fragment: the policy, merged from its pieces.
        methods: the registered methods.
        source: the policy's file.
        text: the policy's text.

    Raises:
        PolicyError: the only mistake, or `PolicyErrors` with all of them.
    """
    read = _Reader(fragment, methods)
    read.found.refuse_unknown(fragment.data.keys() - TABLES, (), TABLES)
    policy = Policy(
        target=read.settings(TargetSpec, "target") or TargetSpec(),
        quality=read.settings(QualitySpec, "quality"),
        quantize=read.rules(QuantizeRule),
        kv=read.rules(KvRule),
        tokens=read.rules(TokensRule),
        draft=read.draft(),
        stream=read.stream(),
        source=source,
        text=text,
    )
    read.found.raise_all()
    return policy


class _Reader:
    """Reads the tables of one policy, one by one; mistakes are collected in `found`."""

    def __init__(self, fragment: Fragment, methods: MethodTable) -> None:
        self.data = fragment.data
        self.methods = methods
        self.found = Findings(fragment.places)
        self.choices = Choices(methods, self.found)

    def settings(self, cls: type[Settings], name: str) -> Settings | None:
        """A table that appears once and only sets things; None when it is absent."""
        table, keys = self._table(name), SETTINGS[name]
        if table is None:
            return None
        self.found.refuse_unknown(table.keys() - keys.keys(), (name,), keys)
        values = self.found.checked(table, (name,), keys, f"[{name}]")
        if "memory" in values:
            values["memory_span"] = self.found.places.value((name, "memory"))
        return cls(**values)

    def stream(self) -> StreamSpec | None:
        """`[stream]`, which needs something registered that streams."""
        if "stream" in self.data and not self.methods.get("stream"):
            self.choices.no_method("stream", "[stream]", ("stream",))
            return None
        return self.settings(StreamSpec, "stream")

    def draft(self) -> DraftSpec | None:
        """`[draft]`: keys of its own, and a method that selects."""
        table, path, slot = self._table("draft"), ("draft",), METHODS["draft"]
        if table is None:
            return None
        if not self.methods.get(slot.aspect):
            self.choices.no_method(slot.aspect, slot.label, path)
            return None
        already = len(self.found.errors)
        values = self.found.checked(table, path, DRAFT, slot.label)
        select = self.choices.read(slot, table, path, DRAFT, required=("drafters",))
        if select is None or len(self.found.errors) > already:
            return None
        return DraftSpec(**values, select=select.method, options=select.options)

    def rules(self, cls: type[AnyRule]) -> tuple[AnyRule, ...]:
        """The rules of one table."""
        name = cls.table
        entries: Any = self.data.get(name, [])
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
            message = f"{name!r} takes a list of tables, found {shown(entries)}"
            help = f"write [[{name}]], in two brackets, once per rule"
            self.found.at_value("E0205", message, (name,), help)
            return ()
        rules = (self._rule(cls, index, entry) for index, entry in enumerate(entries))
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, cls: type[AnyRule], index: int, data: Mapping[str, Any]) -> AnyRule | None:
        path, slot = (cls.table, index), METHODS[cls.table]
        already = len(self.found.errors)
        values = self.found.checked(data, path, RULE, slot.label)
        own = (*RULE, *slot.alternatives)
        choice = self.choices.read(slot, data, path, own, required=("where",))
        if cls is KvRule and "store" in data:
            values["store"] = self._store(data["store"], (*path, "store"))
        if "gate" in values:
            self._check_gate(values["gate"], (*path, "gate"))
        if choice is None or len(self.found.errors) > already:
            return None
        places = self.found.places
        return cls(
            **values,
            method=choice.method,
            options=choice.options,
            index=index,
            span=places.key(path),
            where_span=places.value((*path, "where")),
        )

    def _store(self, data: object, path: KeyPath) -> Choice | None:
        """The inline table `store`."""
        if isinstance(data, Mapping):
            return self.choices.read(STORE, data, path)
        place = self.found.places.value(path)
        expected = 'a table such as { method = "..." }'
        self.found.errors.append(wrong("'store' in [[kv]]", expected, data, place))
        return None

    def _check_gate(self, gate: object, path: KeyPath) -> None:
        quality = self.data.get("quality")
        if isinstance(quality, Mapping) and quality.keys() & set(BOUNDS):
            return
        message = f"gate = {shown(gate)} has no bound to hold the rule to"
        help = f"set {either(BOUNDS)} in [quality], or remove the gate"
        self.found.at_value("E0211", message, path, help)

    def _table(self, name: str) -> Mapping[str, Any] | None:
        """A table that appears once; None when it is absent or something else."""
        table = self.data.get(name)
        if name not in self.data or isinstance(table, Mapping):
            return table
        message = f"{name!r} takes a table, found {shown(table)}"
        self.found.at_value("E0205", message, (name,), f"write [{name}], in one bracket, once")
        return None
