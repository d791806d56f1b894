"""The shape of family `vlm`: a CLIP tower with class token, a projector, a Llama with GQA."""

from __future__ import annotations

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from effc.evaluate.tasks.layout import PATCH, PATCHES, SIDE
from effc.evaluate.tasks.scenes import WORDS
from examples.zoo.words import BOS_ID, EOS_ID, IMAGE, PAD_ID, vocabulary

CONTEXT = 512
IMAGE_TOKENS = PATCHES * PATCHES
TOKENS = vocabulary(WORDS)
IMAGE_ID = TOKENS.index(IMAGE)


def tower_config(width: int = 128, layers: int = 3, side: int = SIDE) -> CLIPVisionConfig:
    """Describe the tower: one visual token per patch of 7 x 7 pixels, and a class token."""
    return CLIPVisionConfig(
        image_size=side,
        patch_size=PATCH,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        projection_dim=width,
    )


def config(width: int = 128, layers: int = 4, tower: CLIPVisionConfig | None = None) -> LlavaConfig:
    """Describe the model: 8 query heads and 4 KV heads of width 32 at the usual width."""
    text = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        num_key_value_heads=width // 32,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return LlavaConfig(
        vision_config=tower_config(),
        text_config=text,
        image_token_index=IMAGE_ID,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_select_strategy="default",
        # The last layer instead of LLaVA's second to last: a layer that nobody reads is wasted.
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )


def build(settings: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """Create an untrained model; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(settings)
