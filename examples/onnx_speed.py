"""How fast an exported file is in stock onnxruntime, beside the builder's own int4 file.

    python -m examples.onnx_speed builder --python PATH -o FOLDER [--checkpoint DIR]
    python -m examples.onnx_speed export -o FOLDER [--checkpoint DIR]
    python -m examples.onnx_speed time FOLDER [--pairs N]

The model has the shape of Qwen2.5-0.5B and random weights. `builder` makes FOLDER/genai with the
model builder of onnxruntime-genai, installed in the environment of PATH: 4 bits, blocks of 32,
products in int8. `export` compiles the same checkpoint to 4 bits and writes FOLDER/effc/ort.onnx
and FOLDER/effc/standard.onnx; it also imports the builder's file and exports that again. Both print
seconds and peak memory. `time` runs every file in the same loop: two threads, a prompt of 128
tokens. The sides take turns, each time in a process of its own: of two sessions in one process the
second is about 8 % faster, whichever file it holds. The builder's file also runs against itself,
which shows what a ratio of 1 looks like here. First, logits are compared with the dequantized
model's.

Means something on an idle machine only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from examples.compile_speed import make_checkpoint
from examples.onnx_exports.loops import Decoder
from examples.onnx_exports.models import write_tokenizer

THREADS, PROMPT, NEW, RUNS = 2, 128, 64, 3
VOCABULARY = 151936

# The builder's file computes in fp32 too; onnxruntime has no bfloat16 on a CPU.
POLICY = """version = 1

[target]
dtype = "float32"

[[quantize]]
where  = "linear or embedding"
method = "rtn"
bits   = 4
group  = 32
"""


def timed(name: str, command: list[str], weights: int) -> None:
    """Run a command; print its wall seconds and peak memory.

    Raises:
        SystemExit: it failed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(f"failed: {' '.join(command)}\n{said.read()[-2000:]}")
    wall, peak = time.perf_counter() - started, usage.ru_maxrss * 1024
    print(f"{name:<26} {wall:6.1f} s   peak {peak / 1e9:5.2f} GB = {peak / weights:.2f} x weights")


def run_builder(python: str, checkpoint: Path, out: Path) -> None:
    """The builder's int4 file; it wants a tokenizer beside the checkpoint."""
    if not (checkpoint / "tokenizer.json").is_file():
        write_tokenizer(checkpoint, VOCABULARY)
    command = [python, "-m", "onnxruntime_genai.models.builder", "-m", "none", "-e", "cpu"]
    command += ["-i", str(checkpoint), "-o", str(out), "-c", str(out / "cache"), "-p", "int4"]
    command += ["--extra_options", "int4_accuracy_level=4", "int4_block_size=32"]
    timed("builder", command, weight_bytes(checkpoint))
    shutil.rmtree(out / "cache", ignore_errors=True)


def run_export(checkpoint: Path, builder: Path, out: Path) -> None:
    """Compile and export the checkpoint, then import and export the builder's file."""
    effc = str(Path(sys.executable).with_name("effc"))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "policy.toml").write_text(POLICY)
    compiled, imported = out / "compiled", out / "imported"
    size = weight_bytes(checkpoint)
    spec = ["--spec", str(out / "policy.toml")]
    timed(
        "compile checkpoint", [effc, "compile", str(checkpoint), *spec, "-o", str(compiled)], size
    )
    for dialect in ("ort", "standard"):
        to = ["--to", "onnx", "--dialect", dialect, "-o", str(out / f"{dialect}.onnx")]
        timed(f"export, dialect {dialect}", [effc, "export", str(compiled), *to], size)
    if not (file := builder / "model.onnx").is_file():
        raise SystemExit(f"{file} is missing: run the command builder first")
    packed = sum(f.stat().st_size for f in builder.glob("model.onnx*"))
    timed("import builder's file", [effc, "compile", str(file), "-o", str(imported)], packed)
    to = ["--to", "onnx", "-o", str(out / "imported.onnx")]
    timed("export it again", [effc, "export", str(imported), *to], packed)


def weight_bytes(checkpoint: Path) -> int:
    """Bytes of the weights on disk."""
    return sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))


def prompt() -> np.ndarray:
    """Random ids [1, T]."""
    return np.random.default_rng(0).integers(5, 1000, (1, PROMPT))


def one_run(decoder: Decoder) -> tuple[float, float]:
    """Seconds of the prefill, and per decoded token; the cache grows by one token a step."""
    started = time.perf_counter()
    logits, cache = decoder.step(prompt())
    prefill = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(NEW):
        logits, cache = decoder.step(best(logits), cache)
    return prefill, (time.perf_counter() - started) / NEW


def best(logits: np.ndarray) -> np.ndarray:
    """The most likely token after the last [B, 1]."""
    return logits[:, -1].argmax(-1)[:, None]


def some_runs(file: Path) -> tuple[float, float]:
    """Medians of `one_run` after one to warm up."""
    decoder = Decoder(file, THREADS)
    one_run(decoder)
    prefill, decode = zip(*(one_run(decoder) for _ in range(RUNS)), strict=True)
    return statistics.median(prefill), statistics.median(decode)


def apart(file: Path) -> tuple[float, float]:
    """`some_runs` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(some_runs, file).result()


def compare_speed(ours: Path, theirs: Path, pairs: int) -> None:
    """Runs of two files in turn; the medians of their ratios with the spread."""
    runs = [[apart(side) for side in (ours, theirs)] for _ in range(pairs)]
    for index, what in enumerate(("prefill", "decode per token")):
        left, right = ([run[side][index] for run in runs] for side in (0, 1))
        ratios = sorted(b / a for a, b in zip(left, right, strict=True))
        print(
            f"{ours.stem:>10} against {theirs.parent.name}: {what:<17}"
            f"{statistics.median(left) * 1e3:8.1f} ms, {statistics.median(right) * 1e3:8.1f} ms; "
            f"{statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def compare_logits(file: Path, reference: Callable[[np.ndarray], np.ndarray]) -> None:
    """The share of the largest logit by which a file differs from the dequantized model."""
    expected = reference(prompt())
    found, _ = Decoder(file, THREADS).step(prompt(), None)
    wrong = np.abs(found - expected).max() / np.abs(expected).max()
    same = (found.argmax(-1) == expected.argmax(-1)).mean()
    print(f"{file.stem:>10}: logits differ by {wrong:.1e} of the largest, {same:.0%} same tokens")


def engine(artifact: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Logits [B, T, V] of a compiled model: dequantized weights, products in fp32."""
    import torch

    import effc

    model = effc.load(artifact)
    return lambda ids: model(torch.from_numpy(ids)).logits.float().numpy()


def compare(folder: Path, pairs: int) -> None:
    """Every exported file against the builder's."""
    theirs = folder / "genai" / "model.onnx"
    dequantized = {"ort": "compiled", "standard": "compiled", "imported": "imported"}
    compare_speed(theirs, theirs, pairs)
    for name, artifact in dequantized.items():
        file = folder / "effc" / f"{name}.onnx"
        compare_logits(file, engine(folder / "effc" / artifact))
        compare_speed(file, theirs, pairs)


@contextmanager
def checkpoint_at(folder: Path | None) -> Iterator[Path]:
    """The checkpoint of the 0.5B shape, made anew unless `folder` holds one."""
    with tempfile.TemporaryDirectory() as temporary:
        chosen = folder or Path(temporary)
        if not (chosen / "model.safetensors").is_file():
            # In a process of its own: children begin with their parent's peak of memory.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(make_checkpoint, chosen).result()
        yield chosen


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("builder", "export"):
        command = commands.add_parser(name)
        command.add_argument("--checkpoint", type=Path, help="of the 0.5B shape; made if not there")
        command.add_argument("-o", "--output", type=Path, required=True)
        command.add_argument("--python", default=sys.executable, help="of the builder")
    timing = commands.add_parser("time")
    timing.add_argument("folder", type=Path)
    timing.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    if given.command == "time":
        compare(given.folder, given.pairs)
        return
    with checkpoint_at(given.checkpoint) as checkpoint:
        if given.command == "builder":
            run_builder(given.python, checkpoint, given.output / "genai")
        else:
            run_export(checkpoint, given.output / "genai", given.output / "effc")


if __name__ == "__main__":
    main()
