"""The folder in which an artifact is written, beside its place.

    .OUT.0123456789ab.part   what is being written, under the name of its fingerprint
    .OUT.0123456789ab.old    the artifact being replaced, for the moment of the exchange

An artifact appears by one rename of a flushed folder. What happens to an unfinished folder:

- a refusal (full disk, damaged source, weights that are not the locked ones) removes it;
- a kill, Ctrl-C or an unforeseen exception leaves it, if it has a fingerprint and a finished
  tensor. The next writer with the same fingerprint goes on there (`safetensors_writer`); what comes
  before the writing (capture, passes, gates) is done again. A writer with another fingerprint
  removes it and says so.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from effc.diagnostics import ArtifactError, EffcError
from effc.export.claim import Output
from effc.export.disk import cannot_write, flush_folder
from effc.ir.manifest import WEIGHTS

LEDGER = "done.jsonl"

_TENSORS = (WEIGHTS, LEDGER)


@contextlib.contextmanager
def work_folder(
    output: Output, fingerprint: str | None, note: Callable[[str], None]
) -> Iterator[Path]:
    """A folder that takes the place of the output when the block ends well.

    Args:
        output: claimed by this process.
        fingerprint: hexadecimal digest of all that decides the weights; None for a folder that no
            other process can continue.
        note: told of unfinished folders that are removed or kept.

    Raises:
        ArtifactError: E0103 when something cannot be written.
    """
    folder = output.hidden("part", fingerprint)
    try:
        _remove_others(output, folder, note)
        folder.mkdir(exist_ok=fingerprint is not None)
        _keep_only_tensors(folder)
        yield folder
        (folder / LEDGER).unlink(missing_ok=True)
        _flush_folders(folder)
        _swap(folder, output)
    except (EffcError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _at_output(error, folder, output.path) from error
    except BaseException:
        if fingerprint is not None and _has_tensors(folder):
            note(f"kept {folder.name}: the same command goes on with its finished tensors")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove_others(output: Output, folder: Path, note: Callable[[str], None]) -> None:
    """Remove what other compilations left; none of them is alive, we hold the lock."""
    for other in output.left_behind("part"):
        if other != folder:
            shutil.rmtree(other)
            note(f"removed {other.name}: an unfinished compilation with other inputs")


def _keep_only_tensors(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in _TENSORS:
            path.unlink()


def _has_tensors(folder: Path) -> bool:
    ledger = folder / LEDGER
    return ledger.is_file() and ledger.stat().st_size > 0


def _at_output(error: EffcError | OSError, folder: Path, out: Path) -> EffcError:
    """The same error, naming the place that the user asked for."""
    if isinstance(error, OSError):
        return cannot_write(out, error)
    if not isinstance(error, ArtifactError):
        return error
    place = str(error.where).replace(str(folder), str(out))
    return ArtifactError(error.code, error.message, where=place, help=error.help)


def _swap(folder: Path, output: Output) -> None:
    """Put `folder` in the place of the output; what was there comes back if that fails."""
    out, old = output.path, output.hidden("old")
    replaced = out.exists()
    if replaced:
        out.rename(old)
    try:
        folder.rename(out)
    except BaseException:
        if replaced:
            old.rename(out)
        raise
    try:
        flush_folder(out.parent)
    finally:
        if replaced:
            shutil.rmtree(old)


def _flush_folders(folder: Path) -> None:
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        flush_folder(path)
