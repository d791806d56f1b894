"""The shape of family `recall`: a Qwen3 with much attention and little else."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from effc.evaluate.tasks.haystack import WORDS
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID, SPECIALS

# The longest prompt of the tasks, and room for what training asks after it.
CONTEXT = 4096 + 512
# Of a first layer's head: how many angles hold its constant part, and how much of it that is.
SHARP, STRENGTH = 4, 0.4


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
    start_by_looking_back(model)
    return model


@torch.no_grad()
def start_by_looking_back(model: Qwen3ForCausalLM) -> None:
    """Let the first layer's heads begin by attending to the word one, two, three or four back.

    Recall needs a layer that brings a key to the value behind it and a second layer that finds
    it there; neither helps without the other, so both are slow to appear by chance. With the first
    one given, as by the short convolutions of recurrent models, the second is soon learnt.

    A direction that all words share makes a part of queries and keys constant. Turned by the rotary
    embedding, two constants that differ by the angle of n words agree best n words apart. The
    fastest angles tell neighbours apart, so the constants live in those.
    """
    settings = model.config
    hidden, width = settings.hidden_size, settings.head_dim
    words = model.model.embed_tokens.weight
    shared = torch.randn(hidden) / hidden**0.5
    words.copy_((torch.randn_like(words) / hidden**0.5 + shared) / 2)
    part = model.model.layers[0].self_attn
    angles = model.model.rotary_emb.inv_freq[:SHARP]
    for projection, turned in ((part.q_proj, True), (part.k_proj, False)):
        heads = projection.weight.view(-1, width, hidden)
        for number, head in enumerate(heads):
            angle = -angles * (1 + number % 4) * turned
            head[:SHARP] += STRENGTH * angle.cos()[:, None] * shared
            head[width // 2 :][:SHARP] += STRENGTH * angle.sin()[:, None] * shared
