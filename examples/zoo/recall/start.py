"""Where training starts: near the circuit that recall needs.

To recall, one layer brings every word what the word before it was, and a later layer looks for
what came after an equal word (Olsson et al. 2022, "In-context Learning and Induction Heads").
Neither helps without the other, so from random weights most of a run passes before they meet. Here
both are laid out, weakly and among noise, much as in "Mimetic Initialization of Self-Attention
Layers" (Trockman and Kolter 2023); how to use them, and everything else, is learnt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

# Rotary angles: the fastest tell neighbours apart, those after `FAST` are slow.
SHARP, FAST = 8, 16
# How much of queries and keys is constant in the first layer; how much of them is fast later on.
STRENGTH, FAST_SHARE = 0.4, 0.3
# How much the heads of the two layers write of what they read, and how sharply they look.
VALUE_GAIN, FIRST_GAIN, SECOND_GAIN, SHARPNESS = 0.25, 0.25, 1.0, 2.0


@torch.no_grad()
def lay_out_recall(model: Qwen3ForCausalLM) -> None:
    """Change the weights of embedding and first two layers; draws from torch's generator.

    The first layer's heads attend one word back and write what they read there, turned by a
    rotation R so that it is not taken for the word itself. The second layer's queries of x and
    keys of y agree where x = R^T y, and its heads write what they read as it is.
    """
    settings = model.config
    hidden = settings.hidden_size
    words = model.model.embed_tokens.weight
    shared = torch.randn(hidden) / hidden**0.5
    words.copy_((torch.randn_like(words) / hidden**0.5 + shared) / 2)
    rotation = nn.init.orthogonal_(torch.empty(hidden, hidden))
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    _attend_one_back(first, shared, model.model.rotary_emb.inv_freq[:SHARP])
    own = torch.eye(hidden) - torch.outer(shared, shared) / shared.square().sum()
    _write_what_is_read(first, own, FIRST_GAIN * rotation, settings)
    _attend_to_what_follows_equals(second, own, rotation, settings)
    _write_what_is_read(second, own, SECOND_GAIN * torch.eye(hidden), settings)
    for attention in (first, second):
        attention.q_norm.weight *= SHARPNESS


def _attend_one_back(attention: nn.Module, shared: Tensor, angles: Tensor) -> None:
    """Add constants to queries and keys that differ by the angle of one word.

    Words share a direction, which makes a part of queries and keys constant. Rotary embeddings
    turn two constants so that they agree best where they undo that difference.
    """
    width, hidden = attention.head_dim, shared.numel()
    for projection, turned in ((attention.q_proj, -angles), (attention.k_proj, 0 * angles)):
        heads = projection.weight.view(-1, width, hidden)
        heads[:, :SHARP] += STRENGTH * turned.cos()[:, None] * shared
        heads[:, width // 2 :][:, :SHARP] += STRENGTH * turned.sin()[:, None] * shared


def _attend_to_what_follows_equals(
    attention: nn.Module, own: Tensor, rotation: Tensor, settings: Qwen3Config
) -> None:
    """Make keys of what the first layer wrote as queries are of the word itself."""
    width, hidden = settings.head_dim, settings.hidden_size
    keys = torch.randn_like(attention.k_proj.weight) @ own / hidden**0.5
    slow = torch.ones(2, width // 2)
    slow[:, :FAST] = FAST_SHARE
    heads = slow.flatten()[:, None] * keys.view(-1, width, hidden)
    attention.k_proj.weight += heads.flatten(0, 1) @ rotation.T
    attention.q_proj.weight += _for_query_heads(heads.flatten(0, 1), settings)


def _write_what_is_read(
    attention: nn.Module, own: Tensor, turned: Tensor, settings: Qwen3Config
) -> None:
    """Make output times value a multiple of `turned`, less what words share, beside noise."""
    nn.init.orthogonal_(attention.v_proj.weight)
    read = _for_query_heads(attention.v_proj.weight, settings)
    attention.o_proj.weight += turned @ read.T
    attention.v_proj.weight.copy_(VALUE_GAIN * attention.v_proj.weight @ own)


def _for_query_heads(weight: Tensor, settings: Qwen3Config) -> Tensor:
    """Repeat the KV heads of [H_kv D, hidden] for their query heads: [H D, hidden]."""
    group = settings.num_attention_heads // settings.num_key_value_heads
    heads = weight.view(-1, settings.head_dim, settings.hidden_size)
    return heads.repeat_interleave(group, 0).flatten(0, 1)
