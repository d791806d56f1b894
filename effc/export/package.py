"""Artifacts: a program as a folder.

    effc.json              the manifest: facts, versions, digests
    weights.safetensors    the state
    stages/<name>.json     one graph each
    model/<name>           tokenizer and configuration, as they came
    policy.toml            the policy as given, if there was one
    policy.lock            what it takes to make the same again, JSON
    report.json            what was done and what it cost
    report.html            the same to look at

A folder appears whole or not at all: it is written beside its place under another name, flushed to
the disk, and renamed (`effc.export.work_folder`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch

from effc.diagnostics import ArtifactError, ModelError, VerifyError
from effc.export.claim import Output, claim
from effc.export.disk import write_file
from effc.export.layout import layout_of
from effc.export.safetensors_writer import WeightsFile, write_weights
from effc.export.work_folder import LEDGER, work_folder
from effc.ir import literals, untrusted
from effc.ir.facts import MODEL_FOLDER, STAGE_FOLDER, facts_to_json
from effc.ir.manifest import (
    MANIFEST,
    WEIGHTS,
    FileRecord,
    Manifest,
    TensorRecord,
    encode,
    manifest_to_bytes,
    sha256,
)
from effc.ir.program import Program, Stage
from effc.ir.serialize import stage_from_json, stage_to_json
from effc.progress import SILENT, Progress
from effc.settings import version


def write_artifact(
    program: Program,
    out: Path | Output,
    *,
    policy_text: str | None,
    lock: Mapping[str, object],
    report: Mapping[str, object],
    html: str | None = None,
    force: bool = False,
    resume: bool = False,
    locked: str | None = None,
    progress: Progress = SILENT,
) -> WeightsFile:
    """Write a program as an artifact.

    Args:
        program: a lowered program; its weights are computed and written one at a time.
        out: the folder to make, or the output that was claimed for it.
        policy_text: the policy as the user wrote it, None if there was none.
        lock: the resolved policy with versions and hashes, JSON-ready; the digest of the weights
            is added as "weights".
        report: what was done, JSON-ready.
        html: the report as a page.
        force: replace an artifact that lies at `out`; a claimed output has been asked already.
        resume: go on where a killed process with the same lock and the same graphs was. Only for
            a lock that names everything that the weights are made of; a model in memory has none.
        locked: the digest that the weights must have.
        progress: told of the bytes written.

    Returns:
        What was written into the weights file.

    Raises:
        ArtifactError: E0102 when `out` exists and may not be replaced, E0103 when it cannot be
            written, E0105 when the weights are not the locked ones, E0605 when another process
            writes there.
        VerifyError: E0406 when the program holds what an artifact cannot express.
        ModelError: E0301 when a file or weight of the model cannot be read any more.
    """
    with contextlib.ExitStack() as stack:
        output = out if isinstance(out, Output) else stack.enter_context(claim(out, force=force))
        texts = _texts(program, policy_text, report, html)
        fingerprint = _fingerprint(program, lock, texts) if resume else None
        folder = stack.enter_context(work_folder(output, fingerprint, progress.line))
        ledger = folder / LEDGER if resume else None
        written = write_weights(program.weights, folder / WEIGHTS, ledger=ledger, progress=progress)
        _check_locked(written.digest, locked, output.path)
        texts["policy.lock"] = encode(dict(lock) | {"weights": written.digest})
        for name, content in texts.items():
            write_file(folder / name, content)
        write_file(folder / MANIFEST, manifest_to_bytes(_manifest(program, texts, written)))
    return written


def _texts(
    program: Program, policy_text: str | None, report: Mapping[str, object], html: str | None
) -> dict[str, bytes]:
    """Every file but the weights and what depends on their digests."""
    texts = {f"{STAGE_FOLDER}/{s.name}.json": _stage(s) for s in program.stages.values()}
    texts |= {f"{MODEL_FOLDER}/{n}": _model_file(n, p) for n, p in program.info.files.items()}
    texts["report.json"] = encode(dict(report))
    if policy_text is not None:
        texts["policy.toml"] = policy_text.encode()
    if html is not None:
        texts["report.html"] = html.encode()
    return texts


def _fingerprint(program: Program, lock: Mapping[str, object], texts: Mapping[str, bytes]) -> str:
    """A digest of all that decides the weights: policy, inputs, versions, graphs and layout."""
    stages = {n: sha256(text) for n, text in texts.items() if n.startswith(f"{STAGE_FOLDER}/")}
    header = sha256(layout_of(program.weights).header)
    return sha256(encode({"lock": dict(lock), "header": header, "stages": stages}))


def _check_locked(found: str, locked: str | None, out: Path) -> None:
    if locked is not None and found != locked:
        raise ArtifactError(
            "E0105",
            f"the weights are not the locked ones: SHA-256 locked {locked}, found {found}",
            where=str(out),
            help="policy, inputs and versions agree, so this machine computes other values; "
            "compile without --locked for a new lock",
        )


def _manifest(program: Program, texts: Mapping[str, bytes], written: WeightsFile) -> Manifest:
    return Manifest(
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
