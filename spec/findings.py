"""The mistakes of a policy, collected so that all are reported at once."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from effc.diagnostics import PolicyError, Span, did_you_mean
from effc.spec.checks import Key
from effc.spec.places import KeyPath, Places


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


class Findings:
    """Collects mistakes.

    Attributes:
        places: where keys and values stand.
        errors: in the order of finding.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.errors: list[PolicyError] = []

    def at_key(self, code: str, message: str, path: KeyPath, help: str | None = None) -> None:
        """Report a mistake at the key, or the table header, of `path`."""
        self.errors.append(PolicyError(code, message, where=self.places.key(path), help=help))

    def at_value(self, code: str, message: str, path: KeyPath, help: str | None = None) -> None:
        """Report a mistake at the value of `path`."""
        self.errors.append(PolicyError(code, message, where=self.places.value(path), help=help))

    @contextmanager
    def collecting(self) -> Generator[None]:
        """Collect the error that the block raises."""
        try:
            yield
        except PolicyError as error:
            self.errors.append(error)

    def refuse_unknown(self, keys: Iterable[str], path: KeyPath, allowed: Iterable[str]) -> None:
        """E0202 for every key; `path` is the table that holds them."""
        table = f"[{path[0]}]" if path else "the policy"
        for key in keys:
            message = f"unknown key {key!r} in {table}"
            self.at_key("E0202", message, (*path, key), did_you_mean(key, allowed))

    def checked(
        self, data: Mapping[str, Any], path: KeyPath, keys: Mapping[str, Key], table: str
    ) -> dict[str, Any]:
        """The values of the known keys that are right, as the schema holds them."""
        values: dict[str, Any] = {}
        for name in data.keys() & keys.keys():
            with self.collecting():
                place = self.places.value((*path, name))
                values[name] = keys[name].check(data[name], f"{name!r} in {table}", place)
        return values

    def raise_all(self) -> None:
        """Raise what was found, if anything.

        Raises:
            PolicyError: the only mistake, or `PolicyErrors` with all of them.
        """
        files = {file: rank for rank, file in enumerate(self.places.files)}

        def position(error: PolicyError) -> tuple[int, int, int, str]:
            where = error.where
            if isinstance(where, Span):
                return files.get(where.file, len(files)), where.line, where.column, ""
            return len(files), 0, 0, str(where)

        errors = sorted(self.errors, key=position)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise PolicyErrors(tuple(errors))
