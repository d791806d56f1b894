"""The shape of family `lm`: a plain Llama with grouped-query attention and tied embeddings."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from examples.zoo.lm.data import BOS_ID, EOS_ID, PAD_ID, VOCABULARY

CONTEXT = 1024


def config(
    hidden: int = 256, ffn: int = 768, layers: int = 4, vocabulary: int = VOCABULARY
) -> LlamaConfig:
    """Describe the model; hidden and FFN widths stay multiples of 256 for K-quant comparisons."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )


def build(settings: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """Create an untrained model; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(settings)
