"""From plain data to a `Policy`: every key known, every value checked, all mistakes collected."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from effc.diagnostics import PolicyError, Span, did_you_mean, nearest
from effc.spec.checks import SETTINGS, Check, rule_checks, wrong
from effc.spec.options import REQUIRED, MethodInfo, OptionError, shown
from effc.spec.places import KeyPath, Places
from effc.spec.schema import (
    VERSION,
    KvRule,
    MethodTable,
    Policy,
    QualitySpec,
    QuantizeRule,
    Rule,
    TargetSpec,
    TokensRule,
)

AnyRule = TypeVar("AnyRule", bound=Rule)

UNBUILT_TABLES = ("draft", "stream")
UNBUILT_RULE_KEYS = ("gate",)
TABLES = ("version", *SETTINGS, "quantize", "kv", "tokens", *UNBUILT_TABLES)


class PolicyErrors(PolicyError):
    """Several mistakes in one policy, reported together in the order of the text.

    Attributes:
        errors: each mistake as its own error.
    """

    def __init__(self, errors: tuple[PolicyError, ...]) -> None:
        self.errors = errors
        first = errors[0]
        super().__init__(first.code, first.message, where=first.where, help=first.help)

    def render(self) -> str:
        """The texts of all errors, one below the other."""
        return "\n".join(error.render() for error in self.errors)

    def to_dict(self) -> dict[str, object]:
        """The first error as JSON-ready data, and all of them under "errors"."""
        return super().to_dict() | {"errors": [error.to_dict() for error in self.errors]}


class Reader:
    """Reads one policy.

    Args:
        places: where keys and values stand.
        methods: the registered methods.
    """

    def __init__(self, places: Places, methods: MethodTable) -> None:
        self.places = places
        self.methods = methods
        self.errors: list[PolicyError] = []

    def read(self, data: Mapping[str, Any], *, source: str | None, text: str) -> Policy:
        """Check all of a policy.

        Args:
            data: what the TOML or the dict says.
            source: the policy's file.
            text: the policy's text.

        Raises:
            PolicyError: the only mistake, or `PolicyErrors` with all of them.
        """
        self._version(data)
        self._refuse_unknown(data.keys() - TABLES, (), TABLES)
        for name in data.keys() & UNBUILT_TABLES:
            self._report("E0212", f"[{name}] is not built yet", (name,), "remove the table")
        target = self._settings("target", data)
        quality = self._settings("quality", data)
        policy = Policy(
            target=TargetSpec(**target or {}),
            quality=None if quality is None else QualitySpec(**quality),
            quantize=self._rules(QuantizeRule, data),
            kv=self._rules(KvRule, data),
            tokens=self._rules(TokensRule, data),
            source=source,
            text=text,
        )
        self._raise_collected()
        return policy

    def _version(self, data: Mapping[str, Any]) -> None:
        """Refuse another version at once: what its other keys mean is unknown."""
        if "version" not in data:
            message = "the policy does not say its version"
            remedy = f"write 'version = {VERSION}' at the top"
            raise PolicyError("E0208", message, where=self.places.key(()), help=remedy)
        version, place = data["version"], self.places.value(("version",))
        if not isinstance(version, int) or isinstance(version, bool):
            raise wrong("'version'", "an integer", version, place)
        if version != VERSION:
            message = f"version {version} of the policy language is not supported"
            remedy = f"this effc reads version {VERSION}"
            raise PolicyError("E0209", message, where=place, help=remedy)

    def _settings(self, name: str, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """The checked values of a table that appears once; None when it is absent."""
        if name not in data:
            return None
        table, path = data[name], (name,)
        if not isinstance(table, Mapping):
            message = f"{name!r} takes a table, found {shown(table)}"
            place, help = self.places.value(path), f"write [{name}], in one bracket, once"
            self.errors.append(PolicyError("E0205", message, where=place, help=help))
            return None
        checks = SETTINGS[name]
        self._refuse_unknown(table.keys() - checks.keys(), path, checks)
        return self._checked(table, path, checks, f"[{name}]")

    def _rules(self, cls: type[AnyRule], data: Mapping[str, Any]) -> tuple[AnyRule, ...]:
        name = cls.table
        entries: Any = data.get(name, [])
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
            place = self.places.value((name,))
            message = f"{name!r} takes a list of tables, found {shown(entries)}"
            help = f"write [[{name}]], in two brackets, once per rule"
            self.errors.append(PolicyError("E0205", message, where=place, help=help))
            return ()
        if entries and not self.methods.get(name):
            message = f"no method is built yet for [[{name}]]"
            self._report("E0212", message, (name, 0), "remove the rule")
            return ()
        rules = (self._rule(cls, index, entry) for index, entry in enumerate(entries))
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, cls: type[AnyRule], index: int, data: Mapping[str, Any]) -> AnyRule | None:
        path: KeyPath = (cls.table, index)
        known = self.methods[cls.table]
        checks = rule_checks(known, cls.table)
        already = len(self.errors)
        values = self._checked(data, path, checks, f"[[{cls.table}]]")
        method = known.get(values.get("method", ""))
        given = {key: value for key, value in data.items() if key not in checks}
        for key in ("where", "method"):
            self._require(key, data, path, given, method)
        options = {} if method is None else self._options(method, given, path, checks)
        if len(self.errors) > already:
            return None
        place, where_place = self.places.key(path), self.places.value((*path, "where"))
        return cls(**values, options=options, index=index, span=place, where_span=where_place)

    def _require(
        self,
        key: str,
        data: Mapping[str, Any],
        path: KeyPath,
        given: dict[str, Any],
        method: MethodInfo | None,
    ) -> None:
        """Report a missing key once; one that is only misspelt is taken out of `given`."""
        if key in data:
            return
        unknown = [name for name in given if method is None or method.option(name) is None]
        misspelt = nearest(key, unknown)
        if misspelt is None:
            message = f"[[{path[0]}]] needs the key {key!r}"
            self._report("E0208", message, path, f"add '{key} = ...'")
        else:
            del given[misspelt]
            self._report(
                "E0202",
                f"unknown key {misspelt!r} in [[{path[0]}]]",
                (*path, misspelt),
                f"did you mean {key!r}?",
            )

    def _options(
        self,
        method: MethodInfo,
        given: Mapping[str, Any],
        path: KeyPath,
        common: Iterable[str],
    ) -> dict[str, object]:
        already = len(self.errors)
        options: dict[str, object] = {}
        for key, value in given.items():
            option = method.option(key)
            if key in UNBUILT_RULE_KEYS:
                self._report("E0212", f"{key!r} is not built yet", (*path, key), "remove the key")
            elif option is None:
                message = f'unknown option {key!r} for method "{method.name}"'
                names = (*common, *(known.name for known in method.options))
                self._report("E0203", message, (*path, key), did_you_mean(key, names))
            else:
                with self._collecting(method, path, option.names):
                    options[key] = option.convert(value)
        for option in method.options:
            if option.default is REQUIRED and option.name not in given:
                message = f'method "{method.name}" needs the option {option.name!r}'
                self._report("E0208", message, path, f"{option.name} takes {option.expected}")
        if method.check is not None and len(self.errors) == already:
            with self._collecting(method, path):
                method.check(**options)
        return options

    @contextmanager
    def _collecting(
        self, method: MethodInfo, path: KeyPath, names: Iterable[str] = ()
    ) -> Generator[None]:
        """Collect what a method says against its options."""
        try:
            yield
        except OptionError as error:
            place = self.places.value((*path, error.option))
            label = f'option {error.option!r} of method "{method.name}"'
            self.errors.append(wrong(label, error.expected, error.found, place, names))
        except PolicyError as error:
            place = self.places.value((*path, "method"))
            self.errors.append(PolicyError(error.code, error.message, where=place, help=error.help))

    def _checked(
        self, data: Mapping[str, Any], path: KeyPath, checks: Mapping[str, Check], table: str
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key in data.keys() & checks.keys():
            try:
                place = self.places.value((*path, key))
                values[key] = checks[key](data[key], f"{key!r} in {table}", place)
            except PolicyError as error:
                self.errors.append(error)
        return values

    def _refuse_unknown(self, keys: Iterable[str], path: KeyPath, allowed: Iterable[str]) -> None:
        table = f"[{path[0]}]" if path else "the policy"
        for key in keys:
            message = f"unknown key {key!r} in {table}"
            self._report("E0202", message, (*path, key), did_you_mean(key, allowed))

    def _report(self, code: str, message: str, path: KeyPath, help: str | None = None) -> None:
        place = self.places.key(path)
        self.errors.append(PolicyError(code, message, where=place, help=help))

    def _raise_collected(self) -> None:
        def position(error: PolicyError) -> tuple[int, int, str]:
            if isinstance(error.where, Span):
                return error.where.line, error.where.column, ""
            return 0, 0, str(error.where)

        errors = sorted(self.errors, key=position)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise PolicyErrors(tuple(errors))
