"""Which tensors of a weights file are finished: one line of JSON each.

    {"name": "model.norm.weight", "sha256": "...", "key": "..."}

A line is written when the bytes of its tensor have been handed to the system, which keeps both when
the process dies. Nothing is believed when it is read back: every tensor is checked against its
digest, so a line whose tensor a crash of the machine has lost only costs the check.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from effc.ir.weights import Weight


class Ledger:
    """The finished tensors of one weights file.

    Attributes:
        finished: name -> (SHA-256 of the tensor's bytes, key of the weight) as found in the file.
    """

    def __init__(self, path: Path) -> None:
        """Open or make a ledger; what follows the last whole line is cut off."""
        self.finished: dict[str, tuple[str, str]] = {}
        self._file = path.open("a+b", buffering=0)
        self._file.truncate(self._read())

    def _read(self) -> int:
        """Fill `finished`; returns the length of the part that could be read."""
        self._file.seek(0)
        good = 0
        for line in self._file.readlines():
            entry = _parse(line)
            if entry is None:
                break
            self.finished[entry["name"]] = (entry["sha256"], entry["key"])
            good += len(line)
        return good

    def clear(self) -> None:
        """Forget everything: the weights file begins anew."""
        self.finished.clear()
        self._file.truncate(0)

    def add(self, name: str, sha256: str, key: str) -> None:
        """Record a tensor whose bytes have been written."""
        entry = {"name": name, "sha256": sha256, "key": key}
        self._file.write(json.dumps(entry).encode() + b"\n")

    def sync(self) -> None:
        """Make the lines durable."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def key_of(name: str, weight: Weight) -> str:
    """What a tensor is, as far as can be said without computing it."""
    facts = (name, str(weight.dtype), list(weight.shape), weight.origin)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _parse(line: bytes) -> dict[str, str] | None:
    """One line, None when a kill left it unfinished."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(entry, dict)
    if not whole or set(entry) != {"name", "sha256", "key"}:
        return None
    return entry if all(isinstance(value, str) for value in entry.values()) else None
