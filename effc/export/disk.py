"""Files that stay written, and the message for those that cannot be.

Standard library only.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from effc.diagnostics import ArtifactError


def require_folder(folder: Path) -> None:
    """Refuse to write into a folder that is not there or may not be written to.

    Raises:
        ArtifactError: E0103.
    """
    if not folder.is_dir():
        raise ArtifactError(
            "E0103",
            "the folder to write into does not exist",
            where=str(folder),
            help=f"make it first: mkdir -p {folder}",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ArtifactError(
            "E0103",
            "the folder may not be written to",
            where=str(folder),
            help="change its permissions, or choose another place with -o",
        )


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and make it durable.

    Raises:
        ArtifactError: E0103.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error, len(content)) from error


def cannot_write(path: Path, error: OSError, needed: int | None = None) -> ArtifactError:
    """The message for a failed write.

    Args:
        path: the file or folder.
        error: what the system said.
        needed: bytes that the file takes.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    amount = f" {needed:,} bytes" if needed else ""
    remedy = f"free{amount} or more there" if full else "check that the folder may be written to"
    return ArtifactError(
        "E0103",
        f"the output cannot be written: {error.strerror or error}",
        where=str(path),
        help=f"{remedy}, or choose another place with -o",
    )


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
