"""policy.lock: what it takes to make an artifact again, and the check that it still holds.

    version       of this format
    policy        as it was understood, in canonical form
    inputs        file -> SHA-256: what was compiled, and the text it was measured on
    environment   versions of packages, of Python and of the machine
    seeds         of random numbers
    reverted      rules that a gate undid
    weights       one SHA-256 over all tensors, added when they are written

`effc compile --locked` computes the same facts and refuses to go on where they differ.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effc.diagnostics import EffcError
from effc.spec.dump import dump_policy
from effc.spec.schema import Policy

if TYPE_CHECKING:
    from effc.compilation import Compilation

LOCK = "policy.lock"
VERSION = 2

_PACKAGES = ("effc", "torch", "transformers", "safetensors", "onnx", "onnx-ir", "triton", "numpy")
_INPUT_SUFFIXES = (".json", ".safetensors", ".bin", ".onnx", ".data", ".onnx_data")
_COMPILE_AGAIN = "compile once without --locked, and keep the policy.lock of that artifact"


def build_lock(done: Compilation, source: Any) -> dict[str, Any]:
    """The content of policy.lock, but for the digest of the weights.

    Args:
        done: the finished compilation.
        source: what was compiled.
    """
    from effc.evaluate.texts import SEED

    return describe(done.policy, source) | {
        "seeds": {"evaluation": SEED},
        "reverted": sorted(entry["rule"] for entry in done.reverted),
    }


def describe(policy: Policy, source: Any) -> dict[str, Any]:
    """The part of a lock that is known before anything is compiled; loads no torch."""
    return {
        "version": VERSION,
        "policy": dump_policy(policy),
        "inputs": input_hashes(source, policy),
        "environment": environment(),
    }


def input_hashes(source: Any, policy: Policy) -> dict[str, str]:
    """File -> SHA-256 of the model's files and of the text to measure on.

    A model in memory has no files; what is compiled from it cannot be told by its lock.
    """
    files: dict[str, Path] = {}
    if isinstance(source, str | Path):
        place = Path(source)
        found = sorted(place.iterdir()) if place.is_dir() else _file_with_company(place)
        files = {p.name: p for p in found if p.suffix in _INPUT_SUFFIXES and p.is_file()}
    data = policy.quality.data if policy.quality is not None else None
    if data is not None and Path(data).is_file():
        files["quality.data"] = Path(data)
    return {name: _sha256_of(path) for name, path in files.items()}


def _file_with_company(file: Path) -> list[Path]:
    """A model file, its external data by the usual names, and the configurations beside it."""
    beside = sorted(p for p in file.parent.iterdir() if p.suffix == ".json")
    data = [file.with_name(f"{file.name}{suffix}") for suffix in (".data", "_data")]
    return [file, *data, *beside]


def _sha256_of(path: Path) -> str:
    facts = path.stat()
    return _sha256(path.resolve(), facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Checkpoints are large and asked for twice: size and time of change tell versions apart."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment() -> dict[str, Any]:
    """Versions and machine, without anything that identifies a person or a place."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "system": platform.system(),
        "packages": versions,
    }


def read_lock(path: Path) -> dict[str, Any]:
    """A lock that some artifact came with.

    Raises:
        EffcError: E0105 when there is none, or it cannot be used.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _unfit("there is no lock beside the policy", path, _COMPILE_AGAIN) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _unfit(f"the lock cannot be read: {error}", path, _COMPILE_AGAIN) from error
    if not _is_lock(data):
        message = f"this is no complete lock of version {VERSION}"
        raise _unfit(message, path, _COMPILE_AGAIN)
    return data


def _is_lock(data: object) -> bool:
    """Whether everything that `check_lock` and the writer of weights compare is there."""
    match data:
        case {
            "version": int(version),
            "policy": str(),
            "inputs": dict(),
            "environment": {"packages": dict()},
            "reverted": list(),
            "weights": str(),
        }:
            return version == VERSION
    return False


def check_lock(locked: Mapping[str, Any], found: Mapping[str, Any], place: Path) -> list[str]:
    """Compare what is locked with what would be done now.

    Args:
        locked: from `read_lock`.
        found: from `describe` or `build_lock`.
        place: the lock's file, for messages.

    Returns:
        A note per difference that need not change the weights: of Python or of the machine.

    Raises:
        EffcError: E0105 lists every other difference with both values.
    """
    before, now = locked["environment"], found["environment"]
    lines = [
        *_policy_differences(locked["policy"], found["policy"]),
        *_differences("input", locked["inputs"], found["inputs"]),
        *_differences("version of", before["packages"], now["packages"]),
    ]
    if "reverted" in found and found["reverted"] != locked["reverted"]:
        lines.append(f"rules undone by gates: {_both(locked['reverted'], found['reverted'])}")
    if lines:
        count = "1 difference" if len(lines) == 1 else f"{len(lines)} differences"
        listed = "\n".join(f"  {line}" for line in lines)
        raise _unfit(
            f"{count} from the lock:\n{listed}",
            place,
            "restore what is locked, or compile without --locked for a new lock",
        )
    machine = [{key: value for key, value in e.items() if key != "packages"} for e in (before, now)]
    return list(_differences("the lock was made on another", *machine))


def _unfit(message: str, path: Path, help: str) -> EffcError:
    return EffcError("E0105", message, where=str(path), help=help)


def _policy_differences(locked: str, found: str) -> Iterator[str]:
    """Stretches of lines that differ."""
    before, now = locked.splitlines(), found.splitlines()
    for tag, i, j, k, m in difflib.SequenceMatcher(None, before, now, autojunk=False).get_opcodes():
        if tag != "equal":
            yield f"policy: {_both(' / '.join(before[i:j]) or None, ' / '.join(now[k:m]) or None)}"


def _differences(what: str, locked: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*locked, *found]):
        if locked.get(name) != found.get(name):
            yield f"{what} {name}: {_both(locked.get(name), found.get(name))}"


def _both(locked: object, found: object) -> str:
    return f"locked {_text(locked)}, found {_text(found)}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "nothing" if value is None else str(value)
