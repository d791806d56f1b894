"""Train family `reason` on problems and traces that are never repeated."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3ForCausalLM

from examples.zoo.reason import data
from examples.zoo.reason.model import CONTEXT, build, config, tokenizer
from examples.zoo.trainer import Progress, Settings, Trainer
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID


class ReasonTask:
    """Next-token prediction over traces; problems are read but not predicted."""

    def __init__(self, model: Qwen3ForCausalLM, seed: int) -> None:
        self.model = model
        self.seed = seed

    def batches(self, step: int, progress: float) -> list[dict[str, Tensor]]:
        """Draw fresh problems whose sizes grow with `progress`."""
        return data.batches(self.seed, step, progress)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy of the trace tokens, weighted to a mean over the step."""
        logits = self.model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
        labels = batch["labels"][:, 1:].flatten()
        total = cross_entropy(logits.flatten(0, 1).float(), labels, reduction="sum")
        return total * batch["weight"]


def train(out: Path, settings: Settings) -> None:
    """Train the model and write an ordinary transformers folder.

    Args:
        out: Where the checkpoint goes; files of an earlier one are replaced.
        settings: Budget, seed and the folder of the resumable state.
    """
    model = build(config(), settings.seed)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size / 1e6:.2f} M parameters, context {CONTEXT}")
    progress = Trainer(ReasonTask(model, settings.seed), settings).run()
    save(out, model, tokenizer())
    record = describe_run(progress, settings)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    # Left behind, the state of a finished run would be taken up by the next one.
    settings.state_file.unlink()
    print(f"wrote {out}")


def save(out: Path, model: Qwen3ForCausalLM, words: PreTrainedTokenizerFast) -> None:
    """Write weights in fp16, configuration and tokenizer."""
    model.to("cpu", torch.float16).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID
    )
    model.save_pretrained(out)
    # safetensors makes its files private; these are to be shared.
    (out / "model.safetensors").chmod(0o644)
    words.model_max_length = CONTEXT
    words.save_pretrained(out)
    _name_tokenizer_for_all_versions(out / "tokenizer_config.json")


def _name_tokenizer_for_all_versions(path: Path) -> None:
    """Write the class name that transformers 4 knows too; version 5 has a new one."""
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n")


def describe_run(progress: Progress, settings: Settings) -> dict[str, Any]:
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
        "final_train_loss": round(sum(last) / len(last), 4),
    }
