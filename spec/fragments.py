"""A policy in pieces: presets, the file, and single keys from the command line, merged in order.

Tables that appear once are merged key by key, where the later piece wins; rules are appended, and
a later rule wins on the same site. Every key keeps its place in the piece it came from.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from effc.diagnostics import PolicyError
from effc.spec.checks import wrong
from effc.spec.places import KeyPath, Place, Places
from effc.spec.schema import VERSION
from effc.spec.tables import RULES, TABLES
from effc.spec.wording import shown

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Fragment:
    """One piece of a policy, as plain data.

    Attributes:
        data: what the TOML, the dict or the flag says.
        places: where its keys and values stand.
        source: its file; None where there is none.
        text: its TOML text; empty where there is none.
    """

    data: Mapping[str, Any]
    places: Places
    source: str | None = None
    text: str = ""


def merge(fragments: Sequence[Fragment], overrides: Iterable[str] = ()) -> Fragment:
    """Put the pieces together.

    Args:
        fragments: in order; a later one wins.
        overrides: texts such as `target.context=4096` or `quantize.0.bits=8`, applied last.

    Raises:
        PolicyError: E0208 or E0209: a piece without a version, or of another one; E0101, E0202: an
            override that says nothing, or names a rule that is not there.
    """
    merged = _Merged()
    for fragment in fragments:
        merged.add(fragment)
    for override in overrides:
        merged.set(override)
    if len(fragments) == 1:
        (only,) = fragments
        return Fragment(merged.data, merged, only.source, only.text)
    return Fragment(merged.data, merged)


@dataclass
class _Merged:
    """The merged data, and for every part of it the piece and the path that it came from."""

    data: dict[str, Any] = field(default_factory=dict[str, Any])
    files: tuple[str, ...] = ()
    origins: dict[KeyPath, tuple[Places, KeyPath]] = field(
        default_factory=dict[KeyPath, tuple[Places, KeyPath]]
    )

    def key(self, path: KeyPath) -> Place:
        places, at = self._origin(path)
        return places.key(at)

    def value(self, path: KeyPath) -> Place:
        places, at = self._origin(path)
        return places.value(at)

    def _origin(self, path: KeyPath) -> tuple[Places, KeyPath]:
        known = next(cut for cut in range(len(path), -1, -1) if path[:cut] in self.origins)
        places, start = self.origins[path[:known]]
        return places, (*start, *path[known:])

    def add(self, fragment: Fragment) -> None:
        """Append rules, overwrite keys."""
        _check_version(fragment)
        self.files += fragment.places.files
        self.origins.setdefault((), (fragment.places, ()))
        for name, value in fragment.data.items():
            earlier, wanted = self.data.get(name), _shape(name)
            if earlier is None or not _fits(value, wanted) or wanted is object:
                self.data[name] = _copy(value)
                self._came_from((name,), fragment.places, (name,))
            elif not _fits(earlier, wanted):
                pass  # what is wrong stays, so that the reader reports it at its place
            elif wanted is list:
                for index, rule in enumerate(value):
                    self._came_from((name, len(earlier)), fragment.places, (name, index))
                    earlier.append(_copy(rule))
            else:
                for key, item in value.items():
                    self._came_from((name, key), fragment.places, (name, key))
                    earlier[key] = _copy(item)

    def _came_from(self, path: KeyPath, places: Places, start: KeyPath) -> None:
        """Note the origin of a part, and forget that of what was there before."""
        below = [known for known in self.origins if known[: len(path)] == path]
        for known in below:
            del self.origins[known]
        self.origins[path] = (places, start)

    def set(self, override: str) -> None:
        """Set one key, as the command line asks."""
        places = _FlagPlaces(f"--set {override}")
        keys, value = _parsed(override, places)
        if keys[0] in RULES and len(keys) > 1 and _fits(self.data.get(keys[0], []), list):
            self._set_in_rule(keys, value, places)
            return
        for key in reversed(keys):
            value = {key: value}
        self.add(Fragment({"version": VERSION} | cast("dict[str, Any]", value), places))

    def _set_in_rule(self, keys: list[str], value: object, places: _FlagPlaces) -> None:
        table, number, *inside = keys
        rules: list[dict[str, Any]] = self.data.get(table, [])
        where, example = places.label, f"for example {table}.0.where=all"
        if not _NUMBER.fullmatch(number) or not inside:
            message = f"[[{table}]] is a list of rules: give the number of one, and a key of it"
            raise PolicyError("E0202", message, where=where, help=example)
        if int(number) >= len(rules):
            message = f"there is no rule {number} in [[{table}]]: the policy has {len(rules)}"
            help = f"rules count from 0: {example}" if rules else "give --spec or --preset"
            raise PolicyError("E0202", message, where=where, help=help)
        path: KeyPath = (table, int(number))
        node = rules[int(number)]
        for key in inside[:-1]:
            path = (*path, key)
            if key not in node:
                self._came_from(path, places, ())
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise wrong(".".join(map(str, path)), "a value, no keys", node, where)
        node[inside[-1]] = value
        self._came_from((*path, inside[-1]), places, ())


@dataclass(frozen=True)
class _FlagPlaces:
    """Everything in a flag stands at the flag."""

    label: str
    files: tuple[str, ...] = ()

    def key(self, path: KeyPath) -> Place:
        return self.label

    def value(self, path: KeyPath) -> Place:
        return self.label


def _check_version(fragment: Fragment) -> None:
    """Refuse another version at once: what its other keys mean is unknown."""
    if "version" not in fragment.data:
        message = "the policy does not say its version"
        remedy = f"write 'version = {VERSION}' at the top"
        raise PolicyError("E0208", message, where=fragment.places.key(()), help=remedy)
    version, place = fragment.data["version"], fragment.places.value(("version",))
    if not isinstance(version, int) or isinstance(version, bool):
        help = f"write version = {VERSION}"
        message = f"'version' takes an integer, found {shown(version)}"
        raise PolicyError("E0205", message, where=place, help=help)
    if version != VERSION:
        message = f"version {version} of the policy language is not supported"
        remedy = f"this effc reads version {VERSION}"
        raise PolicyError("E0209", message, where=place, help=remedy)


def _shape(name: str) -> type:
    """What stands at the top under a name: rules, a table, or (`object`) neither."""
    if name in RULES:
        return list
    return object if name == "version" or name not in TABLES else Mapping


def _fits(value: Any, shape: type) -> bool:
    if shape is list:
        return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, shape)


def _copy(value: Any) -> Any:
    """The value with tables and lists of its own, since overrides write into them."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _parsed(override: str, places: _FlagPlaces) -> tuple[list[str], object]:
    """The keys left of the equals sign; right of it a TOML value, or else the text as it is."""
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        message = "a part of the key is empty" if equals else "there is a key, and no value for it"
        help = "write KEY=VALUE, for example --set target.context=4096"
        raise PolicyError("E0101", message, where=places.label, help=help)
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        read = {}
    return keys, read["value"] if read.keys() == {"value"} else text.strip()
