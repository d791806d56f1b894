"""Weights beside an ONNX file: a model may name files of its own folder, and no others.

The names come from a stranger. They are checked before anything is opened, links included, and
nothing here reads a byte of the files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from effc.diagnostics import ModelError
from effc.frontend.onnx.damage import damaged, text

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Extent:
    """Where the values of a tensor lie.

    Attributes:
        label: the tensor, for messages.
        location: path relative to the model's folder, as the model names it.
        offset: first byte.
        length: number of bytes as the model says, None where it does not.
        needed: number of bytes that the tensor's shape and type take.
    """

    label: str
    location: str
    offset: int
    length: int | None
    needed: int


def read_extent(tensor: Any, label: str, needed: int, place: str) -> Extent:
    """The extent of an external `TensorProto`.

    Raises:
        ModelError: E0310, its entries are missing, double or no numbers.
    """
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        key, value = (
            text(part, f"an entry of {label}", place) for part in (entry.key, entry.value)
        )
        if key in entries:
            raise damaged(place, f"{label} has two entries {key!r} about its external data")
        entries[key] = value
    if not entries.get("location"):
        raise damaged(place, f"{label} has external data, but names no file")
    numbers = {key: _number(entries[key], f"the {key} of {label}", place)
               for key in ("offset", "length") if entries.get(key)}  # fmt: skip
    offset, length = numbers.get("offset", 0), numbers.get("length")
    return Extent(label, entries["location"], offset, length, needed)


def _number(digits: str, what: str, place: str) -> int:
    if digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) <= _LARGEST:
        return int(digits)
    raise damaged(place, f"{what} is {digits[:40]!r}, which is no number of bytes")


def check_external(extents: Iterable[Extent], folder: Path | None, place: str) -> None:
    """Check that every extent lies in a regular file within the folder.

    Args:
        extents: of all external tensors of a model.
        folder: where the model lies, None if it lies nowhere.
        place: for messages.

    Raises:
        ModelError: E0311 says which tensor, which file and why.
    """
    sizes: dict[str, int] = {}
    for extent in extents:
        if folder is None:
            message = f"{extent.label} lies in the file {extent.location!r}, but the model in none"
            help = "give the path of the ONNX file instead of the object"
            raise ModelError("E0311", message, where=place, help=help)
        if extent.location not in sizes:
            sizes[extent.location] = _size(extent, folder, place)
        _check_extent(extent, sizes[extent.location], place)


def _check_extent(extent: Extent, size: int, place: str) -> None:
    if extent.length is not None and extent.length != extent.needed:
        message = f"{extent.label} takes {extent.needed} bytes, but the file says {extent.length}"
        raise _refused(place, message, "export the model again")
    if extent.offset + extent.needed > size:
        raise _refused(
            place,
            f"{extent.location!r} has {size} bytes, but {extent.label} takes bytes "
            f"{extent.offset} to {extent.offset + extent.needed} of it",
            "download or export the file again: it is cut off, or belongs to another model",
        )


def _size(extent: Extent, folder: Path, place: str) -> int:
    """The size of the file that an extent names, if it may be used.

    Hard links are refused as onnx does: like a symbolic link, one shows a file of another place.
    """
    location = extent.location
    _require_inside(location, place)
    path = folder / location
    try:
        real, home = path.resolve(strict=True), folder.resolve(strict=True)
        facts = os.stat(real)
    except FileNotFoundError:
        message = f"the file {location!r} with {extent.label} is missing"
        raise _refused(place, message, "put it into the folder of the ONNX file") from None
    except (OSError, ValueError, RuntimeError) as error:
        message = f"the file {location[:200]!r} with {extent.label} cannot be used: {error}"
        raise _refused(place, message, "put it into the folder of the ONNX file") from error
    if not real.is_relative_to(home):
        message = f"{location!r} is a link that leads out of the model's folder"
        raise _refused(place, message, "copy the file itself into the folder: cp -L")
    if not stat.S_ISREG(facts.st_mode):
        message = f"{location!r} is no regular file"
        raise _refused(place, message, "put the data itself into the folder of the ONNX file")
    if facts.st_nlink > 1:
        message = f"{location!r} is a hard link: the same file has {facts.st_nlink} names"
        raise _refused(place, message, "copy the file itself into the folder: cp")
    return facts.st_size


def _require_inside(location: str, place: str) -> None:
    forms = PurePosixPath(location), PureWindowsPath(location)
    if any(form.is_absolute() or form.anchor for form in forms):
        why = "is an absolute path"
    elif any(".." in form.parts for form in forms):
        why = "leads out of the model's folder"
    elif "\0" in location:
        why = "is no path"
    else:
        return
    message = f"the external data {location[:200]!r} {why}"
    help = "a model may name files of its own folder only; export it again, if you trust it"
    raise _refused(place, message, help)


def _refused(place: str, message: str, help: str) -> ModelError:
    return ModelError("E0311", message, where=place, help=help)
