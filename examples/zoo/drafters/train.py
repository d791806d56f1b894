"""Train a drafter to foretell what `lm` would foretell, on one kind of text.

The loss is the Kullback-Leibler divergence from the target's distribution over each next token to
the drafter's, along the text of the domain (Hinton et al. 2015; Zhou et al. 2024, "DistillSpec").
A drafter need not be right, it has to agree.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaForCausalLM

from examples.zoo.drafters.domains import DOMAINS
from examples.zoo.drafters.model import config
from examples.zoo.lm import data
from examples.zoo.lm.evaluate import load
from examples.zoo.lm.model import CONTEXT, build
from examples.zoo.trainer import Settings, Trainer

TARGET = Path(data.__file__).parent / "checkpoint"
STEP_TOKENS = 2048
MICRO_TOKENS = 1024
# (share of the budget, row length from there on), as for `lm`.
LENGTHS = ((0.0, 256), (0.8, CONTEXT))
# Small models and short runs want larger steps.
MATRIX_RATE, OTHER_RATE = 1.2e-2, 8e-3


class DistillationTask:
    """Agreement with a target over a packed stream."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        target: LlamaForCausalLM,
        stream: NDArray[np.int16],
        seed: int,
    ) -> None:
        self.model = model
        # Its rounding in bf16 is far below the distance that is left to it.
        self.target = target.to(torch.bfloat16).eval().requires_grad_(False)
        self.stream = stream
        self.seed = seed

    def batches(self, step: int, progress: float) -> list[Tensor]:
        """Draw rows whose length follows `progress`; a step's size in tokens is constant."""
        length = next(size for share, size in reversed(LENGTHS) if progress >= share)
        count = STEP_TOKENS // length
        rows = data.rows(self.stream, length - 1, step * count, count, self.seed)
        return list(rows.split(MICRO_TOKENS // length))

    def loss(self, batch: Tensor) -> Tensor:
        """Return the mean of KL(target || drafter) over all places."""
        wanted = self._wanted(batch)
        logits = self.model(input_ids=batch, use_cache=False).logits.flatten(0, 1).float()
        entropy = -torch.xlogy(wanted, wanted).sum(-1).mean()
        return cross_entropy(logits, wanted) - entropy

    @torch.no_grad()
    def _wanted(self, batch: Tensor) -> Tensor:
        """Return the target's distribution after every token.  [B * T, V]"""
        target = self.target.to(batch.device)
        return target(input_ids=batch, use_cache=False).logits.flatten(0, 1).float().softmax(-1)


def train(out: Path, settings: Settings, domain: str) -> None:
    """Train the drafter of one domain and write an ordinary transformers folder.

    Args:
        out: Where the checkpoint goes; files of an earlier one are replaced.
        settings: Budget, seed and the folder of the resumable state.
        domain: A name in `DOMAINS`.
    """
    target, tokenizer = load(TARGET)
    corpus = data.load_corpus()
    documents = DOMAINS[domain](corpus, False)
    stream = data.pack(tokenizer, documents, settings.seed)
    print(f"{domain}: {len(documents)} documents, {len(stream) / 1e6:.2f} M tokens", flush=True)
    model = start(target, settings.seed)
    settings = replace(settings, matrix_rate=MATRIX_RATE, other_rate=OTHER_RATE)
    progress = Trainer(DistillationTask(model, target, stream, settings.seed), settings).run()
    save(out, model)
    last = progress.losses[-100:]
    record = {
        "domain": domain,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "corpus_sha256": corpus.digest,
        "train_documents": len(documents),
        "train_tokens": len(stream),
        "seed": settings.seed,
        "machine": f"a {os.cpu_count()}-core {platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "steps": progress.step,
        "tokens_seen": progress.tokens,
        "minutes": round(progress.seconds / 60, 1),
        "final_train_loss": round(sum(last) / len(last), 4),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    # Left behind, the state of a finished run would be taken up by the next one.
    settings.state_file.unlink()
    print(f"wrote {out}")


def start(target: LlamaForCausalLM, seed: int) -> LlamaForCausalLM:
    """Create an untrained drafter whose embedding is the best narrow copy of the target's.

    The rows of U_d S_d, the first d principal axes, have inner products as close to the
    target's as rows of width d can have (Eckart and Young 1936).
    """
    model = build(config(), seed)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        left, sizes, _ = torch.linalg.svd(target.get_input_embeddings().weight, full_matrices=False)
        table.copy_((left * sizes)[:, : table.shape[1]])
    return model


def save(out: Path, model: LlamaForCausalLM) -> None:
    """Write weights in fp16, configuration, and the target's tokenizer byte for byte."""
    model.to("cpu", torch.float16).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=data.BOS_ID, eos_token_id=data.EOS_ID, pad_token_id=data.PAD_ID
    )
    model.save_pretrained(out)
    # safetensors makes its files private; these are to be shared.
    (out / "model.safetensors").chmod(0o644)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TARGET / name, out / name)
