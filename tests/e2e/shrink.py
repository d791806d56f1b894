"""A tiny configuration of any class: the same structure, small sizes.

Fields are recognized by name. Lists with one entry per layer are cut so that every kind of layer
stays; nested configurations are shrunk too.
"""

from __future__ import annotations

from typing import Any

from tests.e2e.families import VOCABULARY

CONTEXT = 256
MIN_LAYERS, MAX_LAYERS = 3, 6

_SIZES: dict[int, str] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input padded_vocab_size",
    64: """hidden_size n_embd d_model dim word_embed_proj_dim embedding_size lru_width
        attention_hidden_size decoder_hidden_size projection_dim emb_dim""",
    96: """intermediate_size ffn_dim n_inner d_ff ffn_hidden_size encoder_ffn_dim
        decoder_ffn_dim dense_intermediate_size dim_ff feed_forward_size block_ff_dim
        intermediate_size_mlp""",
    48: """moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size
        shared_intermediate_size moe_shared_expert_intermediate_size moe_shared_intermediate_size
        share_expert_dim""",
    4: """num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads
        encoder_attention_heads index_n_heads linear_num_value_heads num_experts
        num_local_experts n_routed_experts moe_num_experts""",
    2: """num_key_value_heads num_experts_per_tok moe_topk top_k moe_top_k num_kv_heads
        num_experts_per_token moe_k swa_num_key_value_heads
        linear_num_key_heads num_attention_groups experts_per_token""",
    1: """n_group topk_group n_shared_experts num_shared_experts first_k_dense_replace
        mamba_n_groups n_groups""",
    8: """qk_rope_head_dim rotary_dim qk_rope_dim index_topk attention_chunk_size
        mamba_n_heads""",
    14: "patch_size",
    28: "image_size",
    128: "mamba_d_ssm",
    16: """head_dim qk_nope_head_dim v_head_dim kv_channels attention_head_dim d_kv
        qk_head_dim index_head_dim linear_key_head_dim linear_value_head_dim mamba_d_head
        swa_head_dim global_head_dim swa_v_head_dim hidden_size_per_layer_input mamba_d_state
        state_size""",
    24: """sliding_window q_lora_rank sliding_window_size attention_window_size window_size
        local_attention""",
    32: "kv_lora_rank o_lora_rank",
    CONTEXT: """max_position_embeddings n_positions max_seq_len max_sequence_length n_ctx
        max_target_positions seq_length seq_len""",
}  # fmt: skip
TABLE: dict[str, Any] = {name: size for size, names in _SIZES.items() for name in names.split()}
_LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers",
    "num_decoder_layers", "encoder_layers", "num_encoder_layers",
)  # fmt: skip
# Left empty by classes that need them anyway.
_NEEDED = {"head_dim": 16, "num_key_value_heads": 2, "num_experts_per_tok": 2,
           "n_routed_experts": 4, "n_shared_experts": 1}  # fmt: skip
_SWITCHES = {"is_decoder": True, "add_cross_attention": False, "initializer_range": 0.02}
# An end token would cut the comparison short; padding may have a meaning inside the model.
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# Latent attention: a head is a rotated part and another one, and no keys are shared.
_LATENT = {"head_dim": 8, "qk_head_dim": 24, "num_key_value_heads": 4}


def shrink(cls: type[Any], overrides: dict[str, Any] | None = None) -> Any:
    """A tiny configuration of a transformers class.

    Args:
        cls: the configuration class.
        overrides: fields that win over everything derived here.
    """
    full = cls()
    fields = vars(full)
    values = {name: tiny for name, tiny in TABLE.items() if _is_size(fields.get(name))}
    values |= {name: tiny for name, tiny in _NEEDED.items() if fields.get(name, 0) is None}
    values |= {name: tiny for name, tiny in _SWITCHES.items() if name in fields}
    values |= {name: _special(cls, name, tiny) for name, tiny in _SPECIAL.items() if name in fields}
    if "qk_rope_head_dim" in fields:
        values |= {name: tiny for name, tiny in _LATENT.items() if name in fields}
    values |= _layers(fields)
    for name in getattr(cls, "sub_configs", {}):
        if fields.get(name) is not None:
            values[name] = shrink(type(fields[name]))
    return cls(**{**values, **(overrides or {})})


def _is_size(value: Any) -> bool:
    """A feature that the class leaves off stays off."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _special(cls: type[Any], name: str, tiny: int) -> int | None:
    """No special token where the class allows that."""
    field = cls.__dataclass_fields__.get(name)  # type: ignore[attr-defined]
    return tiny if field is not None and "None" not in str(field.type) else None


def _layers(fields: dict[str, Any]) -> dict[str, Any]:
    """The number of layers, and every list that has one entry per layer."""
    names = [name for name in _LAYERS if _is_size(fields.get(name))]
    if not names:
        return {}
    depth = fields[names[0]]
    lists = {
        name: value
        for name, value in fields.items()
        if isinstance(value, list) and len(value) == depth and not name.startswith("_")
    }
    kept = _representatives(depth, lists)
    sizes = {name: len(kept) for name in names}
    return sizes | {name: [values[i] for i in kept] for name, values in lists.items()}


def _representatives(depth: int, lists: dict[str, list[Any]]) -> list[int]:
    """One layer of each kind, in order, repeated until there are a few."""
    kinds: dict[str, int] = {}
    for layer in range(depth):
        kinds.setdefault(repr([values[layer] for values in lists.values()]), layer)
    kept = list(kinds.values())[:MAX_LAYERS]
    return (kept * MIN_LAYERS)[: max(MIN_LAYERS, len(kept))]
