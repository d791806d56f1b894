"""Tiny vision-language models of transformers' own classes, with random but lively weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.e2e.families import enliven

IMAGE_TOKEN = 96
SIZE = 12

_TEXT = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 900,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 4,
}


def part(kind: str, **options: Any) -> Any:
    """A configuration of a tower or decoder: "CLIPVision", "Llama", ..."""
    import transformers

    sizes = _TOWER if "Vision" in kind else _TEXT
    return getattr(transformers, f"{kind}Config")(**{**sizes, **options})


def build(name: str, tower: Any, text: Any, seed: int = 0, **options: Any) -> Any:
    """A random model `<name>ForConditionalGeneration` in evaluation mode, fp32.

    Args:
        name: of the classes, e.g. "Llava".
        tower: its vision_config.
        text: its text_config.
        seed: of the weights.
        options: further fields of the configuration.
    """
    import transformers

    known = {"image_token_id": IMAGE_TOKEN, "vision_config": tower, "text_config": text}
    config = getattr(transformers, f"{name}Config")(**known | options)
    torch.manual_seed(seed)
    cls = getattr(transformers, f"{name}ForConditionalGeneration")
    model = cls._from_config(config, attn_implementation="eager").float().eval()
    # A width of 32 where `enliven` thinks of 64.
    return enliven(model, 0.28)


def llava(tower: str = "CLIP", select: str = "default", **options: Any) -> Any:
    """LLaVA with a CLIP tower (a class token and 9 patches) or a SigLIP one (9 patches)."""
    return build(
        "Llava",
        part(f"{tower}Vision"),
        part("Llama"),
        vision_feature_select_strategy=select,
        **options,
    )


ACCEPTED: dict[str, Callable[[], Any]] = {
    "Llava CLIP default": llava,
    "Llava CLIP full": lambda: llava(select="full"),
    "Llava SigLIP full": lambda: llava("Siglip", "full"),
    "Llava two layers, tied head": lambda: llava(
        vision_feature_layer=[-2, 1], tie_word_embeddings=True
    ),
    "VipLlava": lambda: build(
        "VipLlava", part("CLIPVision"), part("Llama"), vision_feature_layer=[-2, 1]
    ),
    "InternVL": lambda: build(
        "InternVL",
        part("InternVLVision", image_size=[16, 16], patch_size=[4, 4]),
        part("Qwen2"),
    ),
    "GotOcr2": lambda: build(
        "GotOcr2",
        part("GotOcr2Vision", image_size=64, output_channels=16, mlp_dim=48, window_size=4,
             global_attn_indexes=[1]),
        part("Qwen2"),
    ),
}  # fmt: skip
"""What is made the LLaVA way."""

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "PaliGemma": (
        lambda: build("PaliGemma", part("SiglipVision"), part("Gemma"), projection_dim=32),
        "see one another in both directions",
    ),
    "LlavaNext": (
        lambda: build("LlavaNext", part("CLIPVision"), part("Llama")),
        "in pieces or of varying size: its tower needs image_sizes",
    ),
    "Qwen2VL": (
        lambda: build(
            "Qwen2VL",
            {"depth": 1, "embed_dim": 32, "num_heads": 4, "hidden_size": 32, "patch_size": 4},
            {**_TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                          "mrope_section": [1, 1, 2]}},
        ),
        "reads images of varying size (image_grid_thw)",
    ),
    "Idefics3": (
        lambda: build("Idefics3", {**_TOWER}, part("Llama")),
        "built in another way than LLaVA",
    ),
    "Pixtral": (
        lambda: build("Llava", part("PixtralVision"), part("Mistral"), vision_feature_layer=-1,
                      vision_feature_select_strategy="full"),
        "one by one",
    ),
}  # fmt: skip
"""What is not, and words of the refusal."""


def gemma3() -> Any:
    """Not made the LLaVA way, and a causal language model of the library all the same."""
    return build("Gemma3", part("SiglipVision"), part("Gemma3Text"), mm_tokens_per_image=9)


def pixels(model: Any, images: int, seed: int = 3) -> Tensor:
    """Random `pixel_values` [N, 3, height, width] for a model."""
    size = model.config.vision_config.image_size
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return torch.randn(images, 3, *sides, generator=torch.Generator().manual_seed(seed))


def mixed_rows(per_image: int) -> list[list[int]]:
    """Prompts with two images, one and none."""
    image = [IMAGE_TOKEN] * per_image
    return [[3, *image, 5, *image, 7, 8], [9, 21, *image, 2], [11, 12, 13]]


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T], padded at the left."""
    T = max(map(len, rows))
    ids = torch.tensor([[0] * (T - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def save(model: Any, folder: Path) -> None:
    """The folder of a model, with a tokenizer of words and a processor of images."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers

    model.save_pretrained(folder)
    words = {f"w{i}": i for i in range(IMAGE_TOKEN)} | {"<image>": IMAGE_TOKEN}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIZE},
        "crop_size": {"height": SIZE, "width": SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
