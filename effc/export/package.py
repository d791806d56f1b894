"""Artifacts: a program as a folder.

    effc.json              the manifest: facts, versions, digests
    weights.safetensors    the state
    stages/<name>.json     one graph each
    model/<name>           tokenizer and configuration, as they came
    policy.toml            the policy as given, if there was one
    policy.lock            the policy as resolved, JSON
    report.json            what was done and what it cost

A folder appears whole or not at all: it is written beside its place under another name, flushed to
the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from effc.diagnostics import ArtifactError, ModelError, VerifyError
from effc.export.safetensors_writer import Progress, cannot_write, write_weights
from effc.ir import literals, untrusted
from effc.ir.facts import MODEL_FOLDER, STAGE_FOLDER, facts_to_json
from effc.ir.manifest import (
    MANIFEST,
    WEIGHTS,
    FileRecord,
    Manifest,
    TensorRecord,
    encode,
    manifest_from_bytes,
    manifest_to_bytes,
)
from effc.ir.program import Program, Stage
from effc.ir.serialize import stage_from_json, stage_to_json
from effc.settings import version


def write_artifact(
    program: Program,
    out: Path,
    *,
    policy_text: str | None,
    lock: Mapping[str, object],
    report: Mapping[str, object],
    force: bool,
    progress: Progress | None = None,
) -> None:
    """Write a program as an artifact.

    Args:
        program: a lowered program; its weights are computed and written one at a time.
        out: the folder to make.
        policy_text: the policy as the user wrote it, None if there was none.
        lock: the resolved policy with versions and hashes, JSON-ready.
        report: what was done, JSON-ready.
        force: replace an artifact that lies at `out`.
        progress: called with a weight's name, the bytes written so far and all bytes.

    Raises:
        ArtifactError: E0102 when `out` exists and may not be replaced, E0103 when it cannot be
            written.
        VerifyError: E0406 when the program holds what an artifact cannot express.
        ModelError: E0301 when a file or weight of the model cannot be read any more.
    """
    out = Path(os.path.realpath(out))
    check_output(out, force=force)
    texts = {f"{STAGE_FOLDER}/{s.name}.json": _stage(s) for s in program.stages.values()}
    texts |= {"policy.lock": encode(dict(lock)), "report.json": encode(dict(report))}
    texts |= {f"{MODEL_FOLDER}/{n}": _model_file(n, p) for n, p in program.info.files.items()}
    if policy_text is not None:
        texts["policy.toml"] = policy_text.encode()
    with _new_folder(out) as folder:
        for name, content in texts.items():
            _write_file(folder / name, content)
        written = write_weights(program.weights, folder / WEIGHTS, progress=progress)
        manifest = Manifest(
            facts=facts_to_json(program),
            files={name: FileRecord.of(content) for name, content in texts.items()},
            tensors={
                name: TensorRecord(
                    literals.dtype_name(weight.dtype), weight.shape, written.digests[name]
                )
                for name, weight in program.weights.items()
            },
            ties=program.weights.ties,
            weights_header=FileRecord.of(written.header),
            versions={"effc": version(), "torch": torch.__version__},
        )
        _write_file(folder / MANIFEST, manifest_to_bytes(manifest))


def check_output(out: Path, *, force: bool) -> None:
    """Refuse an output folder before any work is done.

    Args:
        out: the folder to make.
        force: an artifact there may be replaced; anything else of the user's never.

    Raises:
        ArtifactError: E0102 when something is in the way, E0103 when the parent folder is missing
            or may not be written to.
    """
    if out.exists() or out.is_symlink():
        _check_replaceable(out, force)
    parent = Path(os.path.realpath(out)).parent
    if not parent.is_dir():
        raise ArtifactError(
            "E0103",
            "the folder to write into does not exist",
            where=str(parent),
            help=f"make it first: mkdir -p {parent}",
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ArtifactError(
            "E0103",
            "the folder may not be written to",
            where=str(parent),
            help="change its permissions, or choose another place with -o",
        )


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


def _stage(stage: Stage) -> bytes:
    """The file of a stage, proved readable before it is kept."""
    data = stage_to_json(stage)
    try:
        stage_from_json(data, stage.name)
    except ArtifactError as error:
        raise VerifyError("E0406", error.message, where=str(error.where)) from error
    return encode(data)


def _model_file(name: str, source: Path) -> bytes:
    untrusted.file_name(name, str(source))
    try:
        return source.read_bytes()
    except OSError as error:
        raise ModelError(
            "E0301", f"the file cannot be read: {error.strerror}", where=str(source)
        ) from error


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that takes the place of `out` when the block ends well, and vanishes otherwise."""
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        folder.mkdir()
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        yield folder
        _flush_folders(folder)
        _swap(folder, out)
    except ArtifactError as error:  # name the place that the user asked for
        place = str(error.where).replace(str(folder), str(out))
        raise ArtifactError(error.code, error.message, where=place, help=error.help) from error
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    """Put `folder` in the place of `out`; what was there comes back if that fails."""
    old = out.with_name(f".{out.name}.{secrets.token_hex(4)}.old")
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
        _flush(out.parent)
    finally:
        if replaced:
            shutil.rmtree(old)


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error, len(content)) from error


def _flush_folders(folder: Path) -> None:
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        _flush(path)


def _flush(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
