"""The shape of family `reason`: a Qwen3 with grouped-query attention and heads of width 64."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from effc.evaluate.tasks.reason import WORDS
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID, vocabulary, word_tokenizer

CONTEXT = 1024


def config(
    hidden: int = 256, ffn: int = 512, layers: int = 4, heads: int = 4, kv_heads: int = 2
) -> Qwen3Config:
    """Describe the model; widths are multiples of 256, as K-quants want them."""
    return Qwen3Config(
        vocab_size=len(vocabulary(WORDS)),
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )


def build(settings: Qwen3Config, seed: int) -> Qwen3ForCausalLM:
    """Create an untrained model; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(settings)


def tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: one token per word of the problems and traces."""
    return word_tokenizer(WORDS)
