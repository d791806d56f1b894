"""How long a compile of a real shape takes, and how much memory: Qwen2.5-0.5B with random weights.

    python -m examples.compile_speed [--keep DIR]

Prints wall and processor seconds, peak resident memory and its ratio to the bf16 weight bytes.
The compile runs in a process of its own, through the command line, as a user would run it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLICY = """version = 1

[[quantize]]
where  = "linear or embedding"
method = "rtn"
bits   = 4
group  = 32
"""


def make_checkpoint(folder: Path) -> int:
    """Write 494 million random bf16 parameters; returns their bytes."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_theta=1e6,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(p.nbytes for p in model.parameters())


def measure(checkpoint: Path, work: Path) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and peak resident bytes of one compile."""
    (work / "policy.toml").write_text(POLICY)
    command = [str(Path(sys.executable).with_name("effc")), "compile", str(checkpoint)]
    command += ["--spec", str(work / "policy.toml"), "-o", str(work / "out"), "--force"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the compile failed: {' '.join(command)}")
    wall = time.perf_counter() - started
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main() -> None:
    """Make the checkpoint if it is not there, compile it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="keep the checkpoint in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "checkpoint"
        if not (folder / "model.safetensors").is_file():
            make_checkpoint(folder)
        weights = (folder / "model.safetensors").stat().st_size
        wall, processor, peak = measure(folder, Path(temporary))
    print(f"wall       {wall:6.1f} s")
    print(f"processor  {processor:6.1f} s")
    print(f"peak       {peak / 1e9:6.2f} GB = {peak / weights:.2f} x the bf16 weights")


if __name__ == "__main__":
    main()
