"""Weights to one safetensors file, one at a time.

The header is written before any value is known (`effc.export.layout`), and each value is loaded,
written, hashed and released before the next is asked for, in the order of the table, where results
of one computation come together.

With a ledger, a file that another process left unfinished is continued: finished tensors are read
back and checked against their digests, and only the others are computed. A tensor's bytes do not
depend on which process wrote it, so neither does the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from effc.diagnostics import InternalError, ModelError
from effc.export.disk import cannot_write
from effc.export.layout import Layout, layout_of
from effc.export.ledger import Ledger, key_of
from effc.ir.manifest import sha256, tensor_bytes
from effc.ir.weights import Derivation, Weight, Weights
from effc.progress import SILENT, Progress

SYNC_BYTES = 64 << 20
SYNC_SECONDS = 2.0

_CHUNK = 1 << 24


@dataclass(frozen=True)
class WeightsFile:
    """What was written.

    Attributes:
        header: the bytes in front of the tensors.
        digests: SHA-256 of the bytes of each tensor, by name.
        size: bytes of the whole file.
        reused: tensors that another process had finished.
    """

    header: bytes
    digests: dict[str, str]
    size: int
    reused: int = 0

    @property
    def digest(self) -> str:
        """One SHA-256 over the names and digests of all tensors, in the order of their names."""
        lines = (f"{digest} {name}\n" for name, digest in sorted(self.digests.items()))
        return sha256("".join(lines).encode())


def write_weights(
    weights: Weights, path: Path, *, ledger: Path | None = None, progress: Progress = SILENT
) -> WeightsFile:
    """Write all weights to `path`; at most one of them is in memory at a time.

    Args:
        weights: the table.
        path: a file that does not exist yet; on failure nothing is left of it.
        ledger: the list of finished tensors. With it, `path` may be an unfinished file of these
            same weights, which is continued, and on failure both files stay.
        progress: told of the bytes written so far.

    Raises:
        ArtifactError: E0103 when the file cannot be written (disk full, no permission).
        InternalError: a weight is not of the shape or type it declares.
        ModelError: E0301 when the source of a weight cannot be read.
    """
    layout = layout_of(weights)
    try:
        if ledger is None:
            with _new_file(path, layout) as file:
                digests = _write_missing(file, weights, layout, {}, None, progress)
            return WeightsFile(layout.header, digests, layout.size)
        with contextlib.closing(Ledger(ledger)) as list_, _old_file(path, layout, list_) as file:
            finished = _finished(file, weights, layout, list_, progress)
            digests = _write_missing(file, weights, layout, finished, list_, progress)
        return WeightsFile(layout.header, digests, layout.size, len(finished))
    except OSError as error:
        raise cannot_write(path, error, layout.size) from error


@contextlib.contextmanager
def _new_file(path: Path, layout: Layout) -> Iterator[BinaryIO]:
    """A file with room for everything and its header written; vanishes if the block fails."""
    with path.open("x+b") as file:
        try:
            _reserve(file, layout.size)
            _write(file, layout.header)
            yield file
            _sync(file)
        except BaseException:
            path.unlink()
            raise


@contextlib.contextmanager
def _old_file(path: Path, layout: Layout, ledger: Ledger) -> Iterator[BinaryIO]:
    """The file that a ledger speaks of, begun anew if it is not of this layout."""
    if not _has_layout(path, layout):
        ledger.clear()
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            _reserve(file, layout.size)
            _write(file, layout.header)
    with path.open("r+b") as file:
        yield file
        _sync(file)


def _has_layout(path: Path, layout: Layout) -> bool:
    if not path.is_file() or path.stat().st_size != layout.size:
        return False
    with path.open("rb") as file:
        return file.read(len(layout.header)) == layout.header


def _reserve(file: BinaryIO, size: int) -> None:
    """Claim the space, so that a full disk shows before hours of work and not after."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system cannot reserve
            raise


def _finished(
    file: BinaryIO, weights: Weights, layout: Layout, ledger: Ledger, progress: Progress
) -> dict[str, str]:
    """Name -> digest of the tensors that need not be computed.

    Of a computation with several results either all are finished or none counts: computing one
    gives the others too, which would wait in memory for somebody who never asks.
    """
    good: dict[str, str] = {}
    done, total = 0, sum(weights[n].nbytes for n in ledger.finished if n in layout.offsets)
    for name, (digest, key) in ledger.finished.items():
        if name not in layout.offsets:
            continue
        weight = weights[name]
        if key == key_of(name, weight) and digest == _digest_at(
            file, layout.offsets[name], weight.nbytes
        ):
            good[name] = digest
        done += weight.nbytes
        progress.advance(f"checking {name}", done, total)
    open_ = {_computation(name, weights[name]) for name in weights if name not in good}
    return {n: d for n, d in good.items() if _computation(n, weights[n]) not in open_}


def _computation(name: str, weight: Weight) -> Derivation | str:
    """What gives this weight: shared with others, or its own."""
    return weight.derivation or name


def _digest_at(file: BinaryIO, offset: int, size: int) -> str:
    digest = hashlib.sha256()
    file.seek(offset)
    for begin in range(0, size, _CHUNK):
        digest.update(file.read(min(_CHUNK, size - begin)))
    return digest.hexdigest()


def _write_missing(
    file: BinaryIO,
    weights: Weights,
    layout: Layout,
    finished: Mapping[str, str],
    ledger: Ledger | None,
    progress: Progress,
) -> dict[str, str]:
    """Write what is not finished; returns the digests of all tensors."""
    digests = dict(finished)
    done, total = sum(weights[name].nbytes for name in finished), weights.nbytes
    durable, since = done, time.monotonic()
    for name, weight in weights.items():
        if name in finished:
            continue
        progress.advance(name, done, total)
        digests[name] = _write_tensor(file, name, weight, layout.offsets[name])
        done += weight.nbytes
        progress.advance(name, done, total)
        if ledger is None:
            continue
        file.flush()
        ledger.add(name, digests[name], key_of(name, weight))
        if done - durable >= SYNC_BYTES or time.monotonic() - since >= SYNC_SECONDS:
            _sync(file)
            ledger.sync()
            durable, since = done, time.monotonic()
    return {name: digests[name] for name in weights}


def _write_tensor(file: BinaryIO, name: str, weight: Weight, offset: int) -> str:
    """Compute and write one tensor; returns its digest."""
    digest = hashlib.sha256()
    content = _content(name, weight)
    file.seek(offset)
    for begin in range(0, len(content), _CHUNK):
        chunk = content[begin : begin + _CHUNK]
        digest.update(chunk)
        _write(file, chunk)
    return digest.hexdigest()


def _content(name: str, weight: Weight) -> memoryview:
    """The little-endian bytes of a weight's values."""
    try:
        value = weight.load()
    except OSError as error:
        raise ModelError(
            "E0301", f"weight {name!r} cannot be read: {error}", where=weight.origin
        ) from error
    if tuple(value.shape) != weight.shape or value.dtype != weight.dtype:
        raise InternalError(
            "E0901",
            f"weight {name!r} ({weight.origin}) declares {weight.shape} {weight.dtype} "
            f"and gives {tuple(value.shape)} {value.dtype}",
        )
    if sys.byteorder != "little":
        raise InternalError("E0901", "artifacts can be written on little-endian machines only")
    return tensor_bytes(value)


def _write(file: BinaryIO, content: bytes | memoryview) -> None:
    file.write(content)


def _sync(file: BinaryIO) -> None:
    """Make what was written durable."""
    file.flush()
    os.fsync(file.fileno())
