"""Train family `lm`: rows that grow from 256 tokens to the whole context."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo.lm import data
from examples.zoo.lm.model import CONTEXT, build, config
from examples.zoo.trainer import Progress, Settings, Trainer

STEP_TOKENS = 4096
MICRO_TOKENS = 1024
# (share of the budget, row length from there on): short rows are cheaper and teach as much early.
LENGTHS = ((0.0, 256), (0.4, 512), (0.8, CONTEXT))


class LanguageTask:
    """Next-token prediction over a packed stream."""

    def __init__(self, model: LlamaForCausalLM, stream: NDArray[np.int16], seed: int) -> None:
        self.model = model
        self.stream = stream
        self.seed = seed

    def batches(self, step: int, progress: float) -> list[Tensor]:
        """Draw rows whose length follows `progress`; a step's size in tokens is constant."""
        length = next(size for share, size in reversed(LENGTHS) if progress >= share)
        count = STEP_TOKENS // length
        # Bos takes the place of one token, so that the longest row still fits the context.
        rows = data.rows(self.stream, length - 1, step * count, count, self.seed)
        return list(rows.split(MICRO_TOKENS // length))

    def loss(self, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy of every token after the first."""
        logits = self.model(input_ids=batch, use_cache=False).logits[:, :-1]
        return cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def train(out: Path, settings: Settings) -> None:
    """Train the model and write an ordinary transformers folder.

    Args:
        out: Where the checkpoint goes; files of an earlier one are replaced.
        settings: Budget, seed and the folder of the resumable state.
    """
    corpus = data.load_corpus()
    tokenizer = data.train_tokenizer([document.text for document in corpus.train])
    stream = data.pack(tokenizer, corpus.train, settings.seed)
    print(f"{len(corpus.train)} files, {len(stream) / 1e6:.2f} M tokens, context {CONTEXT}")
    model = build(config(), settings.seed)
    progress = Trainer(LanguageTask(model, stream, settings.seed), settings).run()
    save(out, model, tokenizer)
    record = describe_run(corpus, len(stream), progress, settings)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    # Left behind, the state of a finished run would be taken up by the next one.
    settings.state_file.unlink()
    print(f"wrote {out}")


def save(out: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write weights in fp16, configuration and tokenizer."""
    model.to("cpu", torch.float16).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=data.BOS_ID, eos_token_id=data.EOS_ID, pad_token_id=data.PAD_ID
    )
    model.save_pretrained(out)
    # safetensors makes its files private; these are to be shared.
    (out / "model.safetensors").chmod(0o644)
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(out)
    _name_tokenizer_for_all_versions(out / "tokenizer_config.json")


def _name_tokenizer_for_all_versions(path: Path) -> None:
    """Write the class name that transformers 4 knows too; version 5 has a new one."""
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n")


def describe_run(
    corpus: data.Corpus, stream_tokens: int, progress: Progress, settings: Settings
) -> dict[str, Any]:
    """Collect what the model card says about the run."""
    last = progress.losses[-100:]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "corpus_sha256": corpus.digest,
        "train_files": len(corpus.train),
        "train_tokens": stream_tokens,
        "held_out_files": len(corpus.held_out),
        "seed": settings.seed,
        "machine": f"a {os.cpu_count()}-core {platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "steps": progress.step,
        "tokens_seen": progress.tokens,
        "minutes": round(progress.seconds / 60, 1),
        "final_train_loss": round(sum(last) / len(last), 4),
    }
