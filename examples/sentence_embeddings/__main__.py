"""Compile a published sentence encoder in fewer and fewer bits, and see what it costs.

    python -m examples.sentence_embeddings [--bits 8 4 3 2] [--group 32]

Embeds the sentences of `sentences.txt` with the original weights and with each quantization. Needs
the package that carries the model; no network is used.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

import effc
from examples.sentence_embeddings.comparison import compare
from examples.sentence_embeddings.encoder import INSTALL, embed, model_folder, open_tokenizer

SENTENCES = Path(__file__).with_name("sentences.txt")
ROUNDS = 3


def read_sentences() -> list[str]:
    """The corpus: twelve topics, partly in pairs that say the same in other words."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def policy(bits: int, group: int) -> dict[str, object]:
    """All linear layers and tables in so many bits."""
    rule = {"where": "linear or embedding", "method": "rtn", "bits": bits, "group": group}
    return {"version": 1, "quantize": [rule]}


def weight_bytes(model: effc.CompiledModel) -> int:
    """Bytes of the weights that the model reads."""
    return sum(model.program.weights[name].nbytes for name in model.program.read_weights())


def main(arguments: list[str] | None = None) -> int:
    """Print one row per number of bits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    parser.add_argument("--group", type=int, default=32)
    chosen = parser.parse_args(arguments)
    folder = model_folder()
    if folder is None:
        print(f"this example needs a published model: {INSTALL}", file=sys.stderr)
        return 2
    tokenizer, sentences = open_tokenizer(folder), read_sentences()

    def run(spec: dict[str, object] | None) -> tuple[torch.Tensor, int, float]:
        model = effc.optimize(folder, spec)
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            vectors = embed(model, tokenizer, sentences)
            seconds.append(time.perf_counter() - started)
        return vectors, weight_bytes(model), statistics.median(seconds)

    original, size, seconds = run(None)
    print(f"{len(sentences)} sentences; a random neighbour differs in "
          f"{1 - 1 / (len(sentences) - 1):.1%} of the cases\n")  # fmt: skip
    print("bits      bytes   cosine mean      min   neighbours changed   by equal noise   seconds")
    print(f"  32 {size:10,} {1:13.6f} {1:8.4f} {'-':>20} {'-':>16} {seconds:9.2f}")
    for bits in chosen.bits:
        vectors, size, seconds = run(policy(bits, chosen.group))
        found = compare(original, vectors)
        print(
            f"{bits:4} {size:10,} {found.cosine_mean:13.6f} {found.cosine_min:8.4f}"
            f" {found.changed:11.1%} ± {found.changed_error:6.1%}"
            f" {found.noise:7.1%} ± {found.noise_error:6.2%} {seconds:9.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
