"""Text for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from effc.diagnostics import EffcError


def print_json(data: Mapping[str, object]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(data, indent=1))


def print_error(error: EffcError, *, as_json: bool) -> None:
    """An error as text on stderr, or as one JSON object on stdout."""
    if as_json:
        print_json({"error": error.to_dict()})
    else:
        print(error.render(), file=sys.stderr)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print `table_lines`."""
    print("\n".join(table_lines(header, rows)))


def table_lines(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows in columns; numbers to the right, the last column as wide as it likes."""
    cells = [[*header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def _is_number(cell: object) -> bool:
    """Whether a cell counts something, perhaps with a sign or a bound, or has nothing to count."""
    if isinstance(cell, int | float) or cell == "-":
        return True
    return str(cell).lstrip("+-≥ ")[:1].isdigit()
