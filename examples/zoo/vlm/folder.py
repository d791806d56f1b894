"""The checkpoint as an ordinary transformers folder, with the files that its processor reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlavaForConditionalGeneration

from effc.evaluate.tasks.layout import PATCH, SIDE
from effc.evaluate.tasks.scenes import WORDS
from examples.zoo.vlm.data import IMAGE_MEAN, IMAGE_STD
from examples.zoo.vlm.model import CONTEXT
from examples.zoo.words import BOS_ID, EOS_ID, IMAGE, PAD_ID, word_tokenizer

PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "processor_class": "LlavaProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [IMAGE_MEAN] * 3,
    "image_std": [IMAGE_STD] * 3,
}
PROCESSOR: dict[str, Any] = {
    "processor_class": "LlavaProcessor",
    "image_token": IMAGE,
    "patch_size": PATCH,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}


def save(out: Path, model: LlavaForConditionalGeneration) -> None:
    """Write weights in fp16, configuration, tokenizer and what prepares images."""
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
    settings = json.loads((out / "tokenizer_config.json").read_text())
    # Version 5 of transformers writes a class name that version 4 does not know.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "LlavaProcessor"}
    _write(out / "tokenizer_config.json", settings)
    _write(out / "preprocessor_config.json", PREPROCESSOR)
    _write(out / "processor_config.json", PROCESSOR)


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2) + "\n")
