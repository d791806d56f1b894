"""Artifacts read back, with everything in them checked before it is used.

Reading the manifest and the graphs checks them fully. Weights are memory-mapped; the values of a
tensor are checked against their digest when they are first touched. No code from the folder runs:
operators come from the allow-list.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch

import effc.ops  # noqa: F401  (operators of the graphs must be registered)
from effc.diagnostics import ArtifactError
from effc.ir import literals, untrusted
from effc.ir.facts import MODEL_FOLDER, program_from_facts, stage_files
from effc.ir.manifest import (
    MANIFEST,
    WEIGHTS,
    FileRecord,
    Manifest,
    TensorRecord,
    manifest_from_bytes,
    sha256,
    tensor_bytes,
)
from effc.ir.program import Program
from effc.ir.serialize import stage_from_json
from effc.ir.weights import Weight, Weights

Progress = Callable[[str, int, int], None]

MAX_MANIFEST = 1 << 28


def load_program(path: Path | str) -> Program:
    """The program in an artifact.

    Args:
        path: the folder.

    Returns:
        The program; its nodes carry shapes and element types as text.

    Raises:
        ArtifactError: E0601 when this is no artifact, E0602 when it was made by a newer version,
            E0603 when it is damaged, E0604 when a graph names a forbidden operator. A damaged
            tensor raises E0603 when its weight is first loaded.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    stages = []
    for name in stage_files(manifest.facts, str(folder / MANIFEST)):
        place = str(folder / name)
        content = _checked_file(folder, name, manifest)
        stages.append(stage_from_json(untrusted.parse_json(content, place), place))
    for name in manifest.files:
        if name.startswith(f"{MODEL_FOLDER}/"):
            _checked_file(folder, name, manifest)
    weights = _open_weights(folder, manifest)
    program = program_from_facts(manifest.facts, stages, weights, folder)
    _check_references(program, manifest, folder)
    return program


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact.

    Raises:
        ArtifactError: E0601, E0602 or E0603.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST:
            untrusted.damaged(f"the manifest is larger than {MAX_MANIFEST} bytes", str(path))
        content = path.read_bytes()
    except OSError as error:
        reason = "there is no such folder" if not folder.exists() else f"no readable {MANIFEST}"
        raise ArtifactError(
            "E0601",
            f"this is no effc artifact: {reason}",
            where=str(folder),
            help="give the folder that `effc compile -o` wrote",
        ) from error
    return manifest_from_bytes(content, str(path))


def read_document(path: Path | str, name: str) -> str | None:
    """A text file of an artifact, such as "report.json" or "policy.toml".

    Returns:
        The text, or None when the artifact was written without this file.

    Raises:
        ArtifactError: E0601 or E0602 as `load_program`, E0603 when the file is not as written.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if name not in manifest.files:
        return None
    try:
        return _checked_file(folder, name, manifest).decode("utf-8")
    except UnicodeDecodeError:
        untrusted.damaged("the file is not UTF-8 text", str(folder / name))


def check_integrity(path: Path | str, *, progress: Progress | None = None) -> None:
    """Check every byte of an artifact.

    Args:
        path: the folder.
        progress: called with a tensor's name, the bytes checked so far and all bytes.

    Raises:
        ArtifactError: as `load_program`, and E0603 for any file or tensor that is not as it was
            written.
    """
    folder = Path(path)
    program = load_program(folder)
    manifest = read_manifest(folder)
    for name in manifest.files:
        _checked_file(folder, name, manifest)
    done, total = 0, program.weights.nbytes
    for name, weight in program.weights.items():
        weight.load()
        done += weight.nbytes
        if progress is not None:
            progress(name, done, total)


def _checked_file(folder: Path, name: str, manifest: Manifest) -> bytes:
    """The content of a file that the manifest vouches for."""
    path, record = folder / name, manifest.files.get(name)
    if record is None:
        untrusted.damaged("the manifest does not list this file", str(path))
    try:
        if path.stat().st_size != record.bytes:
            untrusted.damaged(
                f"the file has {path.stat().st_size} bytes, the manifest says {record.bytes}",
                str(path),
            )
        content = path.read_bytes()
    except OSError as error:
        untrusted.damaged(f"the file cannot be read: {error.strerror}", str(path))
    if sha256(content) != record.sha256:
        untrusted.damaged("the content of the file is not as it was written", str(path))
    return content


def _open_weights(folder: Path, manifest: Manifest) -> Weights:
    path = folder / WEIGHTS
    _check_weights_file(path, manifest)
    try:
        file = safetensors.safe_open(path, framework="pt")
        names = set(file.keys())
    except (OSError, safetensors.SafetensorError) as error:
        untrusted.damaged(f"the file cannot be read: {error}", str(path))
    missing = sorted(manifest.tensors.keys() - names)
    if missing or names - manifest.tensors.keys():
        untrusted.damaged(
            f"tensors are missing: {missing[:3]}" if missing else "there are tensors too many",
            str(path),
        )
    weights = Weights(
        {n: _weight(file, n, record, str(path)) for n, record in manifest.tensors.items()}
    )
    for other, name in manifest.ties.items():
        if name not in manifest.tensors:
            untrusted.damaged(f"{other!r} is tied to a tensor that is not there", str(path))
    weights.ties = dict(manifest.ties)
    return weights


def _check_weights_file(path: Path, manifest: Manifest) -> None:
    """The header as it was written, and as many bytes behind it as it says."""
    expected = manifest.weights_header
    size = expected.bytes + sum(
        math.prod(record.shape) * literals.DTYPES[record.dtype].itemsize
        for record in manifest.tensors.values()
    )
    try:
        found = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(min(expected.bytes, found))
    except OSError as error:
        untrusted.damaged(f"the file cannot be read: {error.strerror}", str(path))
    if found != size:
        untrusted.damaged(f"the file has {found} bytes, the manifest says {size}", str(path))
    if FileRecord.of(header) != expected:
        untrusted.damaged("the header of the file is not as it was written", str(path))


def _weight(file: Any, name: str, record: TensorRecord, path: str) -> Weight:
    """A weight in the mapped file, whose values are checked when they are first touched."""
    checked = False

    def load() -> torch.Tensor:
        nonlocal checked
        value = file.get_tensor(name)
        if not checked:
            place = f"{path}: {name}"
            if tuple(value.shape) != record.shape or value.dtype != dtype:
                untrusted.damaged("the tensor is not of the shape and type as written", place)
            if sha256(tensor_bytes(value)) != record.sha256:
                untrusted.damaged("the values of the tensor are not as they were written", place)
            checked = True
        return value

    dtype = literals.DTYPES[record.dtype]
    return Weight(record.shape, dtype, load, f"{path}: {name}")


def _check_references(program: Program, manifest: Manifest, folder: Path) -> None:
    if len(program.stages) != len(manifest.facts["stages"]):  # type: ignore[arg-type]
        untrusted.damaged("two stages have one name", str(folder / MANIFEST))
    for name in program.info.files:
        if f"{MODEL_FOLDER}/{name}" not in manifest.files:
            untrusted.damaged(f"the manifest does not list {name!r}", str(folder / MANIFEST))
    for stage in program.stages.values():
        for name in stage.weight_names():
            if name not in program.weights:
                untrusted.damaged(
                    f"stage {stage.name!r} reads the missing tensor {name!r}", str(folder)
                )
