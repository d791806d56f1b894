"""The exporters, each a function from a checkpoint to `model.onnx`.

Every one does what its documentation tells users to do. They run in environments of their own,
see `__main__.py`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from examples.onnx_exports.models import DECODER, ENCODER, VISION, Model

Export = Callable[[Model, Path, Path], None]


class DoesNotApply(Exception):
    """The exporter makes no models of this kind."""


def optimum(model: Model, checkpoint: Path, out: Path) -> None:
    """`optimum-cli export onnx`: decoders with a cache, everything else as features."""
    from optimum.exporters.onnx import main_export  # pyright: ignore

    task = "text-generation-with-past" if model.kind == DECODER else "feature-extraction"
    library = {"library_name": "transformers"}
    main_export(str(checkpoint), out, task=task, do_validation=False, **library)


def genai(model: Model, checkpoint: Path, out: Path, *arguments: str) -> None:
    """The model builder of onnxruntime-genai, for the CPU."""
    if model.kind != DECODER:
        raise DoesNotApply("the builder makes decoders only")
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", "none"]
    command += ["-i", str(checkpoint), "-o", str(out), "-c", str(checkpoint / "cache")]
    done = subprocess.run([*command, "-e", "cpu", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(last_line(done.stderr))


def genai_fp32(model: Model, checkpoint: Path, out: Path) -> None:
    """`-p fp32`: GroupQueryAttention over fp32 weights."""
    genai(model, checkpoint, out, "-p", "fp32")


def genai_int4(model: Model, checkpoint: Path, out: Path) -> None:
    """`-p int4`, blocks of 32, products in int8: MatMulNBits."""
    options = ["int4_accuracy_level=4", "int4_block_size=32"]
    genai(model, checkpoint, out, "-p", "int4", "--extra_options", *options)


def dynamo(model: Model, checkpoint: Path, out: Path, opset: int = 18) -> None:
    """`torch.onnx.export(..., dynamo=True)` of the module as it stands, without a cache."""
    from examples.onnx_exports.torch_export import export_module

    export_module(model, checkpoint, out / "model.onnx", opset)


def dynamo_cache(model: Model, checkpoint: Path, out: Path, opset: int = 18) -> None:
    """The same with `past_key_values.N.*` in and `present.N.*` out."""
    from examples.onnx_exports.torch_export import export_with_cache

    if model.kind != DECODER:
        raise DoesNotApply("only decoders have a cache")
    export_with_cache(model, checkpoint, out / "model.onnx", opset)


def last_line(text: str) -> str:
    """The line of a traceback that says what was wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


EXPORTERS: dict[str, Export] = {
    "dynamo": dynamo,
    "dynamo-20": lambda *paths: dynamo(*paths, opset=20),
    "dynamo-23": lambda *paths: dynamo(*paths, opset=23),
    "dynamo-cache": dynamo_cache,
    "dynamo-cache-20": lambda *paths: dynamo_cache(*paths, opset=20),
    "dynamo-cache-23": lambda *paths: dynamo_cache(*paths, opset=23),
    "optimum": optimum,
    "genai-fp32": genai_fp32,
    "genai-int4": genai_int4,
}
"""Name -> function(model, checkpoint folder, folder to write)."""

KINDS: dict[str, tuple[str, ...]] = {
    "dynamo": (DECODER, ENCODER, VISION),
    "dynamo-20": (DECODER, ENCODER, VISION),
    "dynamo-23": (DECODER, ENCODER, VISION),
    "dynamo-cache": (DECODER,),
    "dynamo-cache-20": (DECODER,),
    "dynamo-cache-23": (DECODER,),
    "optimum": (DECODER, ENCODER, VISION),
    "genai-fp32": (DECODER,),
    "genai-int4": (DECODER,),
}
"""What each of them is asked for when no family is named."""
