"""The shape of family `recall`: a Qwen3 with much attention and little else."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from effc.evaluate.tasks.haystack import WORDS
from examples.zoo.recall.start import lay_out_recall
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID, SPECIALS

# The longest prompt of the tasks, and room for what training asks after it.
CONTEXT = 4096 + 512


def config(hidden: int = 128, ffn: int = 256, layers: int = 4) -> Qwen3Config:
    """Describe the model.

    Four layers of four KV heads are enough heads for methods that treat heads differently, and
    heads are as wide as those of real models; so attention is wider than the residual stream.
    """
    return Qwen3Config(
        vocab_size=len(SPECIALS) + len(WORDS),
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )


def build(settings: Qwen3Config, seed: int) -> Qwen3ForCausalLM:
    """Create an untrained model; equal seeds give equal weights."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(settings)
    lay_out_recall(model)
    return model
