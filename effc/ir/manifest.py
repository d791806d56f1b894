"""The manifest of an artifact: what a program is besides its graphs and weights.

`effc.json` names every other file and tensor with its digest, and carries a digest of itself, so
that a damaged artifact is recognised wherever the damage is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from effc.diagnostics import ArtifactError
from effc.ir import literals, untrusted
from effc.ir.facts import FACTS

KIND = "effc artifact"
FORMAT = 1

MANIFEST = "effc.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class TensorRecord:
    """What the manifest says about one tensor.

    Attributes:
        dtype: name of the element type.
        shape: sizes.
        sha256: digest of the little-endian bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and digest of one file."""

    bytes: int
    sha256: str

    @staticmethod
    def of(content: bytes) -> FileRecord:
        """The record of a file with this content."""
        return FileRecord(len(content), sha256(content))


@dataclass(frozen=True)
class Manifest:
    """The content of `effc.json`.

    Attributes:
        facts: the program without graphs and weights, as `facts_to_json` wrote it.
        files: every file but the manifest and the weights, by its path in the folder.
        tensors: every weight.
        ties: other names of a weight -> the name it is kept under.
        weights_header: the part of the weights file in front of the tensors.
        versions: of effc and torch, when the artifact was made.
    """

    facts: Mapping[str, object]
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, TensorRecord]
    ties: Mapping[str, str]
    weights_header: FileRecord
    versions: Mapping[str, str]


def sha256(content: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def tensor_bytes(value: torch.Tensor) -> memoryview:
    """The bytes of a tensor's values, row by row, without a copy where they lie so already."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def encode(data: object) -> bytes:
    """JSON as it stands in the files of an artifact."""
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def manifest_to_bytes(manifest: Manifest) -> bytes:
    """The content of `effc.json`."""
    data: dict[str, object] = {
        "kind": KIND,
        "format": FORMAT,
        "versions": dict(manifest.versions),
        **manifest.facts,
        "files": {name: vars(record) for name, record in manifest.files.items()},
        "weights": {
            "header": vars(manifest.weights_header),
            "ties": dict(manifest.ties),
            "tensors": {
                name: vars(record) | {"shape": list(record.shape)}
                for name, record in manifest.tensors.items()
            },
        },
    }
    return encode(data | {"digest": sha256(encode(data))})


def manifest_from_bytes(content: bytes, where: str) -> Manifest:
    """The manifest in the content of `effc.json`.

    Raises:
        ArtifactError: E0601 when this is no manifest, E0602 when its format is newer, E0603 when
            it is damaged.
    """
    data = _recognize(content, where)
    digest = data.pop("digest", None)
    if digest != sha256(encode(data)) or content != encode(data | {"digest": digest}):
        untrusted.damaged("the manifest is not as it was written", where)
    own = ("kind", "format", "versions", "files", "weights")
    untrusted.fields(data, where, (*own, *FACTS))
    weights = untrusted.fields(data["weights"], where, ("header", "ties", "tensors"))
    files = untrusted.mapping(data["files"], where)
    tensors = untrusted.mapping(weights["tensors"], where)
    return Manifest(
        facts={name: data[name] for name in FACTS},
        files={untrusted.file_name(n, where): _file(record, where) for n, record in files.items()},
        tensors={
            untrusted.weight_name(n, where): _tensor(record, f"{where}: tensor {n}")
            for n, record in tensors.items()
        },
        ties=_texts(weights["ties"], where),
        weights_header=_file(weights["header"], where),
        versions=_texts(data["versions"], where),
    )


def _recognize(content: bytes, where: str) -> dict[str, object]:
    """A manifest of a format that this version reads."""
    try:
        data = untrusted.parse_json(content, where)
    except ArtifactError as error:
        raise _unreadable("the manifest is not valid JSON", where) from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise _unreadable("this is not the manifest of an effc artifact", where)
    written = untrusted.integer(data.get("format"), f"{where}: format", low=1)
    if written > FORMAT:
        versions = data.get("versions")
        maker = versions.get("effc", "?") if isinstance(versions, dict) else "?"
        raise ArtifactError(
            "E0602",
            f"the artifact has format {written} (made by effc {str(maker)[:40]}), "
            f"this version reads formats up to {FORMAT}",
            where=where,
            help="install a newer effc, or compile the model again with this one",
        )
    return data


def _unreadable(message: str, where: str) -> ArtifactError:
    return ArtifactError(
        "E0601", message, where=where, help="give the folder that `effc compile -o` wrote"
    )


def _file(data: object, where: str) -> FileRecord:
    entry = untrusted.fields(data, where, ("bytes", "sha256"))
    size = untrusted.integer(entry["bytes"], where, low=0)
    return FileRecord(size, untrusted.digest(entry["sha256"], where))


def _tensor(data: object, where: str) -> TensorRecord:
    entry = untrusted.fields(data, where, ("dtype", "shape", "sha256"))
    shape = [untrusted.integer(s, where, low=0) for s in untrusted.array(entry["shape"], where)]
    dtype = untrusted.choice(entry["dtype"], where, literals.DTYPES)
    return TensorRecord(dtype, tuple(shape), untrusted.digest(entry["sha256"], where))


def _texts(data: object, where: str) -> dict[str, str]:
    entries = untrusted.mapping(data, where).items()
    return {untrusted.text(key, where): untrusted.text(value, where) for key, value in entries}
