"""Reading a policy: from a file, a text, or a dict, with presets before and overrides after it.

    policy = load_policy("policy.toml", methods, presets=["gated"], overrides=["target.batch=2"])

The values come from `tomllib`, their places from `effc.spec.places`; all pieces are merged by
`effc.spec.fragments` and then checked by the same code. Nothing here imports torch.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from effc.diagnostics import PolicyError, nearest
from effc.spec import presets as shipped
from effc.spec.dump import dump_policy
from effc.spec.findings import PolicyErrors
from effc.spec.fragments import Fragment, merge
from effc.spec.places import DictPlaces, scan
from effc.spec.reader import read_policy
from effc.spec.schema import VERSION, MethodTable, Policy
from effc.spec.toml_errors import toml_error

__all__ = ["PolicyErrors", "dump_policy", "load_policy", "parse_policy", "policy_from_dict"]


def load_policy(
    spec: str | os.PathLike[str] | Mapping[str, object] | Policy | None,
    methods: MethodTable,
    *,
    presets: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Policy:
    """The policy that a user names in any of the ways `effc.optimize` takes.

    Presets, `spec` and overrides are merged in this order: single tables key by key, where the
    later one wins; rules are appended.

    Args:
        spec: the path of a TOML file, a dict of the same structure, a `Policy`, or None for the
            policy that changes nothing.
        methods: the registered methods, by aspect and name.
        presets: names of policies that ship with effc.
        overrides: single keys, such as `target.context=4096` or `quantize.0.bits=8`.

    Raises:
        PolicyError: E0210 where a file cannot be read, E0101 for an override that sets nothing;
            else see `parse_policy`.
    """
    if isinstance(spec, Policy) and not presets and not overrides:
        return spec
    fragments = [_fragment(shipped.path(name)) for name in presets]
    if spec is not None or not fragments:
        fragments.append(_fragment(spec))
    merged = merge(fragments, overrides)
    text = "" if overrides else merged.text
    policy = read_policy(merged, methods, source=merged.source, text=text)
    return policy if text else replace(policy, text=dump_policy(policy))


def parse_policy(text: str, *, file: str = "<policy>", methods: MethodTable) -> Policy:
    """Read a policy from TOML text.

    Args:
        text: the policy.
        file: the name to use in messages.
        methods: the registered methods, by aspect and name.

    Raises:
        PolicyError: E0201 to E0212, at its line and column; `PolicyErrors` where there are several.
    """
    return read_policy(merge([_from_text(text, file)]), methods, source=file, text=text)


def policy_from_dict(data: Mapping[str, object], methods: MethodTable) -> Policy:
    """Read a policy from a dict of the same structure as the TOML.

    A value None means that the key is absent; `version` may be left out.

    Args:
        data: tables as dicts, rules as lists of dicts.
        methods: the registered methods, by aspect and name.

    Raises:
        PolicyError: as `parse_policy`, with key paths such as `quantize[0].bits` as places.
    """
    return load_policy(data, methods)


def _fragment(spec: object) -> Fragment:
    match spec:
        case None:
            return _from_dict({})
        case Policy():
            return _from_dict(tomllib.loads(dump_policy(spec)))
        case Mapping():
            return _from_dict(cast("Mapping[str, object]", spec))
        case str() | os.PathLike():
            path = os.fspath(cast("str | os.PathLike[str]", spec))
            return _from_text(_read(path), path)
        case _:
            message = f"a policy is a path, a dict or an effc.Policy, found {type(spec).__name__}"
            raise PolicyError("E0205", message)


def _from_text(text: str, file: str) -> Fragment:
    try:
        return Fragment(tomllib.loads(text), scan(text, file), file, text)
    except RecursionError:
        raise PolicyError("E0201", "lists are nested too deeply", where=file) from None
    except ValueError as error:
        raise toml_error(str(error), text, file) from None


def _from_dict(data: Mapping[str, object]) -> Fragment:
    plain = {"version": VERSION} | cast("dict[str, Any]", _plain(data))
    return Fragment(plain, DictPlaces())


def _plain(value: object) -> object:
    """The value as `tomllib` would have given it."""
    match value:
        case Mapping():
            items = cast("Mapping[object, object]", value).items()
            return {str(key): _plain(item) for key, item in items if item is not None}
        case list() | tuple():
            return [_plain(item) for item in cast("list[object]", value)]
        case _:
            return value


def _read(path: str) -> str:
    try:
        content = Path(path).read_bytes()
        if b"\0" in content:
            raise _unreadable(path, "it is no text", "give the path of a TOML file")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file", _nearby(Path(path))) from None
    except IsADirectoryError:
        raise _unreadable(path, "it is a folder", "name the policy file in it") from None
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        raise _unreadable(path, reason, "save the file as UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "check its permissions") from None
    except ValueError as error:
        raise _unreadable(path, str(error)) from None


def _nearby(path: Path) -> str:
    """What the user may have meant."""
    near = nearest(path.name, [file.name for file in path.parent.glob("*.toml")])
    return f"did you mean '{path.with_name(near)}'?" if near else "give the path of a TOML file"


def _unreadable(path: str, reason: str, help: str | None = None) -> PolicyError:
    return PolicyError("E0210", f"the policy cannot be read: {reason}", where=path, help=help)
