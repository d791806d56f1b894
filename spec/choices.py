"""Reading the methods that a policy names, each with its options."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from effc.diagnostics import PolicyError, did_you_mean, nearest
from effc.spec.checks import wrong
from effc.spec.findings import Findings
from effc.spec.options import REQUIRED, MethodInfo, OptionError
from effc.spec.places import KeyPath
from effc.spec.schema import Choice, MethodTable
from effc.spec.tables import SLOTS, Slot
from effc.spec.wording import either, shown

_EXAMPLES = {"where": '"linear"', "drafters": '["ngram"]', "store": '{ method = "int8" }'}
"""A value for keys that a table cannot do without."""

_SEARCHED = "auto"
"""The name that asks the planner to choose a method."""


def _examples(known: Iterable[str]) -> dict[str, str]:
    """Examples of keys, with a method that there is."""
    return _EXAMPLES | {
        key: f'"{name}"' for name in sorted(known)[:1] for key in ("method", "select")
    }


class Choices:
    """Reads choices of methods.

    Args:
        methods: the registered methods.
        found: collects the mistakes.
    """

    def __init__(self, methods: MethodTable, found: Findings) -> None:
        self.methods = methods
        self.found = found

    def read(
        self,
        slot: Slot,
        data: Mapping[str, Any],
        path: KeyPath,
        own: Iterable[str] = (),
        required: Iterable[str] = (),
    ) -> Choice | None:
        """The method that a table names; every key that is not the table's own is an option.

        Args:
            slot: where the name stands.
            data: the table.
            path: its place.
            own: the other keys of the table.
            required: those of them that must be there.

        Returns:
            None where there is no such method; an empty name where the table needs none.
        """
        own = (*own, slot.key)
        given = {key: value for key, value in data.items() if key not in own}
        method = self._method(slot, data, path, given)
        for key in required:
            if key not in data:
                self._missing((key,), slot.label, path, given, method)
        if method is not None:
            return Choice(method.name, self._options(method, given, path, own))
        if slot.key in data or not data.keys() & set(slot.alternatives):
            return None
        for key in given:
            message = f"unknown key {key!r} in {slot.label}, which names no method"
            self.found.at_key("E0202", message, (*path, key), did_you_mean(key, own))
        return Choice("")

    def no_method(self, aspect: str, label: str, path: KeyPath) -> None:
        """E0212: a part of the language that needs a method, and nothing is registered."""
        self.found.at_value(
            "E0212",
            f"no method is registered for {label}: this version of effc has none",
            path,
            f'remove it, or install a package that adds one (entry point "{aspect}.NAME" of the '
            'group "effc.methods")',
        )

    def _method(
        self, slot: Slot, data: Mapping[str, Any], path: KeyPath, given: dict[str, Any]
    ) -> MethodInfo | None:
        known = self.methods.get(slot.aspect, {})
        if slot.key not in data:
            if not known and not slot.alternatives:
                self.no_method(slot.aspect, slot.label, path)
            elif not data.keys() & set(slot.alternatives):
                keys = (slot.key, *slot.alternatives) if known else slot.alternatives
                self._missing(keys, slot.label, path, given, examples=_examples(known))
            return None
        name, path = data[slot.key], (*path, slot.key)
        if not isinstance(name, str) or not name:
            place = self.found.places.value(path)
            self.found.errors.append(wrong(f"{slot.key!r} in {slot.label}", "a text", name, place))
        elif name in known:
            return known[name]
        elif not known and not self._elsewhere(name):
            self.no_method(slot.aspect, slot.label, path)
        elif name == _SEARCHED:
            message = f'{slot.key} = "{name}" asks for a search, which this version does not have'
            help = f"name a method of {slot.label}: {', '.join(sorted(known))}"
            self.found.at_value("E0212", message, path, help)
        else:
            message = f"unknown method {shown(name)} in {slot.label}"
            self.found.at_value("E0204", message, path, self._meant(name, known))
        return None

    def _meant(self, name: str, known: Iterable[str]) -> str:
        """What a name may have been meant for: another table, or the nearest name."""
        labels = self._elsewhere(name)
        if labels:
            return f"{shown(name)} is a method of {either(labels)}"
        return did_you_mean(name, known)

    def _elsewhere(self, name: str) -> list[str]:
        return [slot.label for slot in SLOTS if name in self.methods.get(slot.aspect, {})]

    def _missing(
        self,
        keys: tuple[str, ...],
        label: str,
        path: KeyPath,
        given: dict[str, Any],
        method: MethodInfo | None = None,
        examples: Mapping[str, str] = _EXAMPLES,
    ) -> None:
        """Report once that one of `keys` is missing; if misspelt, it is taken out of `given`."""
        unknown = [name for name in given if method is None or method.option(name) is None]
        for key in keys:
            if misspelt := nearest(key, unknown):
                del given[misspelt]
                message = f"unknown key {misspelt!r} in {label}"
                self.found.at_key("E0202", message, (*path, misspelt), f"did you mean {key!r}?")
                return
        message = f"{label} needs the key {either([repr(key) for key in keys])}"
        self.found.at_key(
            "E0208", message, path, f"add {keys[0]} = {examples[keys[0]]}, for example"
        )

    def _options(
        self, method: MethodInfo, given: Mapping[str, Any], path: KeyPath, own: Iterable[str]
    ) -> dict[str, object]:
        already = len(self.found.errors)
        options: dict[str, object] = {}
        for key, value in given.items():
            option = method.option(key)
            if option is None:
                message = f'unknown option {key!r} for method "{method.name}"'
                names = (*own, *(known.name for known in method.options))
                help = did_you_mean(key, names) if method.options else "it has no options"
                self.found.at_key("E0203", message, (*path, key), help)
            else:
                with self._collecting(method, path, option.names):
                    options[key] = option.convert(value, self.found.places.value((*path, key)))
        for option in method.options:
            if option.default is REQUIRED and option.name not in given:
                message = f'method "{method.name}" needs the option {option.name!r}'
                help = f"{option.name} takes {option.expected}"
                self.found.at_key("E0208", message, path, help)
        if method.check is not None and len(self.found.errors) == already:
            with self._collecting(method, path):
                method.check(**options)
        return options

    @contextmanager
    def _collecting(
        self, method: MethodInfo, path: KeyPath, names: Iterable[str] = ()
    ) -> Generator[None]:
        """Collect what a method says against its options, at the option's or the method's place."""
        try:
            yield
        except OptionError as error:
            place = self.found.places.value((*path, error.option))
            label = f'option {error.option!r} of method "{method.name}"'
            self.found.errors.append(wrong(label, error.expected, error.found, place, names))
        except PolicyError as error:
            where = error.where or self.found.places.key(path)
            self.found.errors.append(
                PolicyError(error.code, error.message, where=where, help=error.help)
            )
