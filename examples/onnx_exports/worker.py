"""Runs one exporter over some models, in whatever environment it is started in.

    python -m examples.onnx_exports.worker EXPORTER FOLDER FAMILY[=CHECKPOINT]...

A checkpoint is given for families that are no random models. Writes
FOLDER/FAMILY/{model.onnx, config.json, made.json}; made.json says how the file was made, or why it
could not be.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from examples.onnx_exports.exporters import EXPORTERS, DoesNotApply
from examples.onnx_exports.models import BY_NAME, Model

_PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "optimum-onnx", "onnxruntime-genai")


def make(exporter: str, model: Model, out: Path, checkpoint: Path | None) -> dict[str, Any]:
    """Export one model, random unless there is a checkpoint; returns what made.json says."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    said: dict[str, Any] = {"exporter": exporter, "family": model.name, "kind": model.kind}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            if checkpoint is None:
                checkpoint = Path(temporary) / "checkpoint"
                model.save(checkpoint)
            EXPORTERS[exporter](model, checkpoint, out)
            shutil.copy(checkpoint / "config.json", out)
            said["ok"] = True
        except Exception as error:  # exporters fail in every way; the reason is the result
            (out / "traceback.txt").write_text(traceback.format_exc())
            (out / "model.onnx").unlink(missing_ok=True)
            said |= {"ok": False, "reason": reason(error).replace(f"{temporary}/", "")}
            said["refused"] = isinstance(error, DoesNotApply)
    said |= {"seconds": round(time.perf_counter() - started, 1), "versions": versions()}
    (out / "made.json").write_text(json.dumps(said, indent=1) + "\n")
    return said


def reason(error: BaseException) -> str:
    """The first cause of an exception in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def versions() -> dict[str, str]:
    """The packages that had a hand in it."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(exporter: str, folder: str, *families: str) -> None:
    """Make every family, one line each."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for family, _, checkpoint in (argument.partition("=") for argument in families):
        given = Path(checkpoint) if checkpoint else None
        said = make(exporter, BY_NAME[family], Path(folder) / family, given)
        print(f"{exporter} {family}: {'ok' if said['ok'] else said['reason']}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
