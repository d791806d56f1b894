"""An output is claimed before any work is done for it, by one process at a time.

    OUT          an artifact: absent, or whole
    .OUT.lock    locked by the process that has claimed OUT

Standard library only, so that a wrong output is refused before anything heavy is loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from effc.diagnostics import ArtifactError
from effc.export.disk import cannot_write, require_folder

_NAME_DIGITS = 12


@dataclass(frozen=True)
class Output:
    """An output that this process alone may write to, from `claim`.

    Attributes:
        path: the folder to make, links followed.
    """

    path: Path

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.path.with_name(f".{self.path.name}.lock")

    def hidden(self, ending: str, fingerprint: str | None = None) -> Path:
        """The name of a folder beside the output: of a fingerprint, or one never used before."""
        digits = (fingerprint or secrets.token_hex(_NAME_DIGITS))[:_NAME_DIGITS]
        return self.path.with_name(f".{self.path.name}.{digits}.{ending}")

    def left_behind(self, ending: str) -> list[Path]:
        """Hidden folders that some writer could not remove."""
        name = re.compile(rf"\.{re.escape(self.path.name)}\.[0-9a-f]{{{_NAME_DIGITS}}}\.{ending}")
        beside = sorted(self.path.parent.iterdir())
        return [p for p in beside if name.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]


@contextlib.contextmanager
def claim(out: Path, *, force: bool) -> Iterator[Output]:
    """Reserve an output, before any work is done for it.

    Args:
        out: the folder to make.
        force: an artifact there may be replaced; anything else of the user's never.

    Raises:
        ArtifactError: E0102 when something is in the way, E0103 when the parent folder is missing
            or may not be written to, E0605 when another process has claimed the output.
    """
    output = Output(Path(os.path.realpath(out)))
    if not output.path.name:
        raise _in_the_way(out, "it is the root of the file system")
    require_folder(output.path.parent)
    with _locked(output):
        _put_back(output)
        if out.exists() or out.is_symlink():
            _check_replaceable(out, force)
        yield output


@contextlib.contextmanager
def _locked(output: Output) -> Iterator[None]:
    """Hold the lock file of an output; the system lets go of it when the process dies."""
    try:
        handle = _lock(output.lock)
    except BlockingIOError as error:
        raise ArtifactError(
            "E0605",
            "another compilation writes to the same output",
            where=str(output.path),
            help="wait until it has ended, or choose another place with -o",
        ) from error
    except OSError as error:
        raise cannot_write(output.path, error) from error
    try:
        yield
    finally:
        output.lock.unlink(missing_ok=True)  # while it is held: see _lock
        os.close(handle)


def _lock(path: Path) -> int:
    """Lock a file that has this name; the one before us may have removed what we opened."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _lies_at(handle, path):
                return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _lies_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _put_back(output: Output) -> None:
    """Undo an exchange that a kill cut in two; remove what one left behind after it."""
    try:
        for old in output.left_behind("old"):
            if output.path.exists():
                shutil.rmtree(old)
            else:
                old.rename(output.path)
    except OSError as error:
        raise cannot_write(output.path, error) from error


def _check_replaceable(out: Path, force: bool) -> None:
    if not force:
        raise ArtifactError(
            "E0102",
            "the output exists already",
            where=str(out),
            help="choose another place with -o, or give --force to replace an artifact",
        )
    if not out.is_dir():
        raise _in_the_way(out, "it is no folder")
    if not any(out.iterdir()):
        return
    from effc.ir.manifest import MANIFEST, WEIGHTS, manifest_from_bytes  # loads torch

    try:
        manifest = manifest_from_bytes((out / MANIFEST).read_bytes(), str(out / MANIFEST))
    except (OSError, ArtifactError) as error:
        raise _in_the_way(out, "it is no readable effc artifact") from error
    known = {MANIFEST, WEIGHTS, *manifest.files}
    found = {str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir() or p.is_symlink()}
    if foreign := sorted(found - known):
        raise _in_the_way(out, f"it also holds {', '.join(foreign[:3])}, not written by effc")


def _in_the_way(out: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        "E0102",
        f"the output exists and --force does not replace it: {reason}",
        where=str(out),
        help="move it away, or choose another place with -o",
    )
