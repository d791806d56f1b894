"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from effc.diagnostics import ArtifactError
from effc.export.disk import cannot_write, flush_folder, require_folder


def check_files(paths: Iterable[Path], *, force: bool) -> None:
    """Refuse output files before any work is done.

    Args:
        paths: the files to make.
        force: files there may be replaced; a folder never.

    Raises:
        ArtifactError: E0102 when something is in the way, E0103 when the folder is missing or may
            not be written to.
    """
    for path in paths:
        _check_place(path, force)
        require_folder(Path(os.path.realpath(path)).parent)


def _check_place(path: Path, force: bool) -> None:
    if path.is_dir():
        raise ArtifactError(
            "E0102",
            "the output is a folder, not a file",
            where=str(path),
            help="name a file in it with -o",
        )
    if not force and (path.exists() or path.is_symlink()):
        raise ArtifactError(
            "E0102",
            "the output exists already",
            where=str(path),
            help="choose another place with -o, or give --force to replace it",
        )


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file that takes the place of `path` when the block ends well, and vanishes otherwise.

    Raises:
        ArtifactError: E0103 when it cannot be written.
    """
    final = Path(os.path.realpath(path))
    # Libraries look at the ending of what they write.
    part = final.with_name(f".{final.stem}.{secrets.token_hex(4)}.part{final.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(final)
        flush_folder(final.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        part.unlink(missing_ok=True)
