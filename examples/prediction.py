"""What a plan predicts, beside what is then written, allocated and timed.

    python -m examples.prediction [--time] [--large [--keep DIR]]

The reference model of the repository, and with `--large` a model of the shape of Qwen2.5-0.5B with
random weights, each with 4-bit weights and an 8-bit cache. Bytes are always compared; seconds with
`--time`, which means something on an idle machine only: its bandwidth (a streaming sum over 1 GiB)
and arithmetic are measured in the same run.

Why seconds differ: the prediction is a lower bound, bytes over the bandwidth of main memory. The
reference operators dequantize packed weights at every call, and Python runs between two of them;
a small model stays in the processor's caches, which read faster than main memory.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.compile_speed import make_checkpoint

if TYPE_CHECKING:
    from effc.compilation import Planned

CONTEXT, PROMPT, NEW = 1024, 128, 32

POLICY: dict[str, Any] = {
    "version": 1,
    "target": {"context": CONTEXT},
    "quantize": [{"where": "linear or embedding", "method": "rtn", "bits": 4, "group": 32}],
    "kv": [{"where": "attention", "store": {"method": "int8"}}],
}

REFERENCE_MODEL = Path(__file__).parent / "zoo" / "lm" / "checkpoint"


def compare(name: str, folder: Path, *, timed: bool) -> None:
    """Plan, compile, write, load; print every figure beside its prediction."""
    import effc
    from effc.compiler import plan_model
    from effc.cost.prediction import compare_with_measured

    planned = plan_model(folder, POLICY)
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out"
        effc.optimize(str(folder), POLICY).save(out)
        rows = compare_with_measured(planned.prediction, measured_bytes(out))
        if timed:
            rows += compare_with_measured(timed_prediction(planned), measured_seconds(out))
    print(f"\n{name}")
    for row in rows:
        print(
            f"  {row['what']:<17} predicted {row['predicted']:>13,.6g}   measured "
            f"{row['measured']:>13,.6g}   error {row['error']:+.1%}"
        )


def measured_bytes(out: Path) -> dict[str, float]:
    """Bytes of the tensors in the file, and of the pages that a full context takes."""
    from safetensors import safe_open

    from effc.runtime.kv_store import PagedStore
    from effc.runtime.loader import load_program
    from effc.runtime.session import prefill_chunk

    with safe_open(out / "weights.safetensors", framework="pt") as file:
        weights = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    program = load_program(out)
    step = min(CONTEXT, prefill_chunk(program))
    store = PagedStore(program, 1, capacity=CONTEXT, step=step)
    return {"weights_after": weights, "cache_at_context": store.bytes()["device"]}


def timed_prediction(planned: Planned) -> dict[str, Any]:
    """The prediction for this machine, at the sizes that are timed."""
    from effc.cost.machine import measure_cpu
    from effc.cost.prediction import predict

    machine = measure_cpu(probe_bytes=1 << 30)
    print(f"{machine.name}: {machine.bandwidth / 1e9:.1f} GB/s, "
          f"{machine.peak_flops / 1e9:.0f} GFLOP/s")  # fmt: skip
    held = PROMPT + NEW // 2
    what = (planned.program, planned.sites, planned.plan, planned.policy)
    return predict(*what, machine, context=held, prompt=PROMPT)


def measured_seconds(out: Path) -> dict[str, float]:
    """Seconds of a prefill and of one decoded token, the best of three runs."""
    import torch

    import effc

    model = effc.load(out)
    ids = torch.arange(PROMPT)[None] % 256
    options: dict[str, Any] = {"max_new_tokens": NEW, "eos_token_id": []}
    runs = [model.generate_result(ids, **options).timings for _ in range(3)]
    return {
        "prefill_seconds": min(run["prefill_s"] for run in runs),
        "decode_seconds": min(run["decode_s"] for run in runs) / (NEW - 1),
    }


@contextmanager
def large_model(keep: Path | None) -> Iterator[Path]:
    """A checkpoint of the 0.5B shape, made anew unless `keep` holds one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        if not (folder / "model.safetensors").is_file():
            make_checkpoint(folder)
        yield folder


def main() -> None:
    """Compare the models that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", action="store_true", help="compare seconds too")
    parser.add_argument("--large", action="store_true", help="also the shape of Qwen2.5-0.5B")
    parser.add_argument("--keep", type=Path, help="keep the large checkpoint in this folder")
    arguments = parser.parse_args()
    compare("reference model", REFERENCE_MODEL, timed=arguments.time)
    if arguments.large:
        with large_model(arguments.keep) as folder:
            compare("shape of Qwen2.5-0.5B", folder, timed=arguments.time)


if __name__ == "__main__":
    main()
