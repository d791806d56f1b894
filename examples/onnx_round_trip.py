"""A checkpoint on its way through ONNX: exported by torch, compiled by effc, run by onnxruntime.

    python -m examples.onnx_round_trip CHECKPOINT POLICY OUT [PROMPT]

    CHECKPOINT --torch.onnx--> source.onnx --effc--> OUT/artifact --effc export--> OUT/small.onnx

Prints the sizes, and the text that stock onnxruntime makes of the last file beside the text of
effc's own engine. Needs the extra `onnx`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import effc
from effc.cost.text import bytes_text
from examples.onnx_exports.loops import Decoder
from examples.onnx_exports.models import Model
from examples.onnx_exports.torch_export import export_with_cache

NEW = 48
BESIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """Take the round and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="a transformers folder of a decoder")
    parser.add_argument("policy", type=Path)
    parser.add_argument("out", type=Path, help="a folder for the files")
    parser.add_argument("prompt", nargs="?", default="def read_file(path")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    source = export_checkpoint(given.checkpoint, given.out / "source.onnx")
    fast = effc.optimize(source, spec=given.policy)
    small = given.out / "small.onnx"
    fast.export(small, format="onnx", force=True)
    for file in (source, small):
        held = sum(path.stat().st_size for path in given.out.glob(f"{file.name}*"))
        print(f"{file}: {bytes_text(held)}")

    tokenizer = Tokenizer.from_file(str(given.out / "tokenizer.json"))
    ids = np.array([tokenizer.encode(given.prompt).ids])
    theirs = Decoder(small).generate(ids, NEW)[0].tolist()
    ours = fast.generate(torch.from_numpy(ids), max_new_tokens=NEW, eos_token_id=None)
    print(f"\nonnxruntime goes on with:\n{given.prompt}{tokenizer.decode(theirs)}\n")
    print(agreement(theirs, ours[0, ids.shape[1] :].tolist()))


def export_checkpoint(checkpoint: Path, file: Path) -> Path:
    """The checkpoint as torch.onnx writes it, with its cache, and its other files beside it."""
    model = Model(checkpoint.name, "LlamaForCausalLM")
    export_with_cache(model, checkpoint, file, opset=18)
    for name in BESIDE:
        if (checkpoint / name).is_file():
            (file.parent / name).write_bytes((checkpoint / name).read_bytes())
    return file


def agreement(theirs: list[int], ours: list[int]) -> str:
    """How far the two engines say the same."""
    pairs = list(zip(theirs, ours, strict=False))
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    if same == len(pairs):
        return f"effc's own engine writes the same {same} tokens"
    return f"effc's own engine writes the same {same} tokens, and another one then"


if __name__ == "__main__":
    main()
