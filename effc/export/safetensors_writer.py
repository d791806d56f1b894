"""Weights to one safetensors file, one at a time.

The layout follows from shapes and types alone, so the header is written before any value is known,
and each value is loaded, written, hashed and released before the next is asked for. Values arrive
in the order of the table (results of one computation come together); in the file they lie by
falling element size, which aligns every tensor without the gaps that the format forbids.

Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from effc.diagnostics import ArtifactError, InternalError, ModelError
from effc.ir.manifest import tensor_bytes
from effc.ir.weights import Weight, Weights

Progress = Callable[[str, int, int], None]

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_ALIGNMENT = 64
_CHUNK = 1 << 24


@dataclass(frozen=True)
class WeightsFile:
    """What was written.

    Attributes:
        header: the bytes in front of the tensors.
        digests: SHA-256 of the bytes of each tensor, by name.
        size: bytes of the whole file.
    """

    header: bytes
    digests: dict[str, str]
    size: int


def write_weights(weights: Weights, path: Path, *, progress: Progress | None = None) -> WeightsFile:
    """Write all weights to `path`; at most one of them is in memory at a time.

    Args:
        weights: the table.
        path: a file that does not exist yet; on failure nothing is left of it.
        progress: called with the weight's name, the bytes written so far and all bytes.

    Raises:
        ArtifactError: E0103 when the file cannot be written (disk full, no permission).
        InternalError: a weight is not of the shape or type it declares.
    """
    layout = _layout(weights)
    header = _header(weights, layout)
    size = len(header) + weights.nbytes
    try:
        file = path.open("xb")
    except OSError as error:
        raise cannot_write(path, error, size) from error
    try:
        with file:
            _reserve(file, size)
            _write(file, header)
            digests = _write_tensors(file, weights, layout, len(header), progress)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink()
        raise cannot_write(path, error, size) from error
    except BaseException:
        path.unlink()
        raise
    return WeightsFile(header, digests, size)


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


def _layout(weights: Weights) -> dict[str, int]:
    """Name -> offset behind the header."""
    offset = 0
    layout: dict[str, int] = {}
    for name in sorted(weights, key=lambda name: (-weights[name].dtype.itemsize, name)):
        layout[name] = offset
        offset += weights[name].nbytes
    return layout


def _header(weights: Weights, layout: dict[str, int]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, offset in layout.items():
        weight = weights[name]
        if weight.dtype not in DTYPE_NAMES:
            raise InternalError("E0901", f"{weight.dtype} has no place in safetensors", where=name)
        entries[name] = {
            "dtype": DTYPE_NAMES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [offset, offset + weight.nbytes],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _reserve(file: BinaryIO, size: int) -> None:
    """Claim the space, so that a full disk shows before hours of work and not after."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system cannot reserve
            raise


def _write_tensors(
    file: BinaryIO,
    weights: Weights,
    layout: dict[str, int],
    start: int,
    progress: Progress | None,
) -> dict[str, str]:
    digests: dict[str, str] = {}
    done, total = 0, weights.nbytes
    for name in weights:
        digest = hashlib.sha256()
        content = _content(name, weights[name])
        file.seek(start + layout[name])
        for begin in range(0, len(content), _CHUNK):
            chunk = content[begin : begin + _CHUNK]
            digest.update(chunk)
            _write(file, chunk)
            done += len(chunk)
            if progress is not None:
                progress(name, done, total)
        digests[name] = digest.hexdigest()
    return digests


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
