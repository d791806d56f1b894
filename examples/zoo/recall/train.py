"""Train family `recall`."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen3ForCausalLM

from effc.evaluate.tasks.haystack import WORDS
from examples.zoo.recall.curriculum import LENGTHS, RecallTraining
from examples.zoo.recall.model import CONTEXT, build, config
from examples.zoo.trainer import Progress, Settings, Trainer
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID, word_tokenizer

# Stages take most of the budget at the full rate; what was learnt settles in the last fifth.
ANNEAL_FROM = 0.8
# Answers are few and their gradients noisy, which Muon does not average out.
MATRIX_RATE, OTHER_RATE = 2e-3, 2e-3


def train(out: Path, settings: Settings) -> None:
    """Train the model and write an ordinary transformers folder.

    Args:
        out: Where the checkpoint goes; files of an earlier one are replaced.
        settings: Budget, seed and the folder of the resumable state.
    """
    settings = replace(
        settings, anneal_from=ANNEAL_FROM, matrix_rate=MATRIX_RATE, other_rate=OTHER_RATE
    )
    model = build(config(), settings.seed)
    task = RecallTraining(model, settings.seed)
    print(f"{sum(part.numel() for part in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    progress = Trainer(task, settings, report=lambda line: print(line, flush=True)).run()
    save(out, model)
    record = describe_run(task, progress, settings)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    # Left behind, the state of a finished run would be taken up by the next one.
    settings.state_file.unlink()
    print(f"wrote {out}", flush=True)


def save(out: Path, model: Qwen3ForCausalLM) -> None:
    """Write weights in fp16, configuration and tokenizer."""
    model.to("cpu", torch.float16).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID
    )
    model.save_pretrained(out)
    # safetensors makes its files private; these are to be shared.
    (out / "model.safetensors").chmod(0o644)
    tokenizer = word_tokenizer(WORDS)
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"
    described = json.loads(path.read_text())
    # The name that transformers 4 knows too; version 5 has a new one.
    described["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(described, indent=2) + "\n")


def describe_run(task: RecallTraining, progress: Progress, settings: Settings) -> dict[str, Any]:
    """Collect what the model card says about the run."""
    last = progress.losses[-100:]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seed": settings.seed,
        "machine": f"a {os.cpu_count()}-core {platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "steps": progress.step,
        "tokens_seen": progress.tokens,
        "minutes": round(progress.seconds / 60, 1),
        "longest": LENGTHS[task.stage],
        "final_train_loss": round(sum(last) / len(last), 4),
    }
