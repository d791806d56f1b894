"""The shape of family `video`: a LLaVA whose images are the frames of a clip."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from effc.evaluate.tasks.moving import CELL, GRID, SIDE
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID

IMAGE_ID = 3  # what `word_tokenizer` gives `<image>`
FRAME_TOKENS = GRID * GRID
IMAGE_MEAN, IMAGE_STD = 0.5, 0.5  # of all channels
CONTEXT = 512


def config(vocabulary: int, width: int = 128, layers: int = 4) -> LlavaConfig:
    """Describe the model: one patch per cell of a frame, grouped-query attention in the decoder.

    Args:
        vocabulary: Number of tokens.
        width: Width of tower and decoder.
        layers: Layers of the decoder.
    """
    tower = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=width // 32,
        image_size=SIDE,
        patch_size=CELL,
    )
    decoder = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        # With the usual 1e4, hardly a third of so narrow a head turns slowly enough to compare a
        # word of the question with what a frame 400 tokens earlier shows.
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return LlavaConfig(
        vision_config=tower,
        text_config=decoder,
        image_token_index=IMAGE_ID,
        image_seq_length=FRAME_TOKENS,
        # All layers of so small a tower are read; "default" leaves the class token out.
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )


def build(settings: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """Create an untrained model; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(settings)
