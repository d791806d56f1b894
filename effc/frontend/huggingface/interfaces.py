"""How transformers' models say what they do: one operator per attention and per expert layer.

The library lets a backend register its attention, mask and expert functions by name. Ours emit
the canonical operators, so the captured graph needs no guessing. Decoders state their masks; an
encoder's mask depends on the padding of its input, so it is part of the graph.
"""

from __future__ import annotations

from typing import Any

import torch

import effc.ops  # noqa: F401
from effc.diagnostics import ModelError
from effc.frontend.huggingface.masks import DenseMask, MaskSpec, UnknownMask, probe

NAME = "effc"
ENCODER = "effc-encoder"

Mask = MaskSpec | UnknownMask | DenseMask | torch.Tensor | None

# Keyword arguments of an attention call that do not change its meaning here: masks are read from
# the mask function, caches and outputs are switched off by the capture, and whether gradients add
# up in a fixed order concerns training.
_IRRELEVANT = {
    "position_ids",
    "use_cache",
    "cache_position",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "deterministic",
    "logits_to_keep",
    "sliding_window",
    "output_router_logits",
    "layer_idx",
    "num_logits_to_keep",
}


def register() -> None:
    """Make our attention, mask and experts implementations known by `NAME` and `ENCODER`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, mask)
    ALL_ATTENTION_FUNCTIONS.register(ENCODER, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ENCODER, dense_mask)
    try:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    except ImportError:
        return
    ALL_EXPERTS_FUNCTIONS.register(NAME, experts)


def mask(*, mask_function: Any, config: Any = None, **_: Any) -> MaskSpec | UnknownMask:
    """The mask of a layer type as a statement instead of a tensor."""
    try:
        return probe(mask_function, _probe_length(config), type(config).__name__)
    except ModelError as error:
        return UnknownMask(error)


def dense_mask(
    *,
    mask_function: Any,
    attention_mask: torch.Tensor | None,
    q_length: int,
    config: Any = None,
    **options: Any,
) -> DenseMask:
    """The mask of a layer type as a tensor of the graph, padding included: true = visible.

    Where only padding is hidden it is a view [B, 1, T, S] of the input; other masks are computed
    as the library computes them.
    """
    from transformers.masking_utils import sdpa_mask

    spec = mask(mask_function=mask_function, config=config)
    if spec == MaskSpec(causal=False) and attention_mask is not None:
        visible = attention_mask.to(torch.bool)[:, None, None, :]
        return DenseMask(visible.expand(-1, 1, q_length, -1))
    options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    computed = sdpa_mask(
        mask_function=mask_function, attention_mask=attention_mask, q_length=q_length, **options
    )
    assert computed is not None, "the library may leave a mask out only where it is allowed to"
    return DenseMask(computed)


def _probe_length(config: Any) -> int:
    """Long enough to see every window the configuration mentions."""
    names = ("sliding_window", "attention_chunk_size", "max_position_embeddings", "window_size")
    sizes = [value for n in names if isinstance(value := getattr(config, n, None), int)]
    return 2 * max([64, *sizes]) + 3


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Mask,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Emit `effc::attention`; [B, H, T, D] in, [B, T, H, D_v] out, as the library expects."""
    softcap = kwargs.pop("softcap", None)
    sinks = kwargs.pop("s_aux", None)
    is_causal = kwargs.pop("is_causal", None)
    place = f"{type(module).__name__} (layer {getattr(module, 'layer_idx', '?')})"
    _refuse_unknown(kwargs, place)
    spec, dense = _mask_of(module, attention_mask, is_causal, place)
    out = torch.ops.effc.attention(
        query,
        key,
        value,
        dense,
        spec.causal,
        spec.window,
        spec.chunk,
        float(scaling if scaling is not None else query.shape[-1] ** -0.5),
        None if softcap is None else float(softcap),
        sinks,
    )
    return out.transpose(1, 2).contiguous(), None


def _refuse_unknown(kwargs: dict[str, Any], place: str) -> None:
    unknown = sorted(k for k, v in kwargs.items() if v is not None and k not in _IRRELEVANT)
    if unknown:
        raise ModelError(
            "E0308",
            f"the attention call has arguments effc does not know: {', '.join(unknown)}",
            where=place,
            help="this architecture needs support in effc.frontend.huggingface.interfaces",
        )


def _mask_of(
    module: torch.nn.Module,
    given: Mask,
    is_causal: bool | None,
    place: str,
) -> tuple[MaskSpec, torch.Tensor | None]:
    if isinstance(given, UnknownMask):
        raise given.error
    if isinstance(given, MaskSpec):
        return given, None
    if isinstance(given, DenseMask):
        return MaskSpec(causal=False), given.visible
    if isinstance(given, torch.Tensor):
        return MaskSpec(causal=False), given
    # Without a mask the library's eager attention sees everything, its fused one goes by this flag.
    causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", True))
    if causal:
        raise ModelError("E0308", "causal attention is called without a mask", where=place)
    return MaskSpec(causal=False), None


def experts(
    module: Any, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Emit two `effc::grouped_linear` calls: every token through each of its experts.

    Args:
        module: the library's expert layer, with stacked weights [E, out, in].
        hidden: [N, W] tokens.
        top_k_index: [N, K] expert of each choice.
        top_k_weights: [N, K] its share.

    Returns:
        [N, W].
    """
    tokens, width = hidden.shape
    choices = top_k_index.shape[-1]
    ids = top_k_index.reshape(-1)
    rows = hidden.unsqueeze(1).expand(tokens, choices, width).reshape(-1, width)
    transposed = bool(getattr(module, "is_transposed", False))
    biased = bool(getattr(module, "has_bias", False))
    first = "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        bias = getattr(module, f"{name}_bias") if biased else None
        return torch.ops.effc.grouped_linear(x, getattr(module, name), ids, bias, transposed)

    inner = linear(rows, first)
    inner = module._apply_gate(inner) if first == "gate_up_proj" else module.act_fn(inner)
    out = linear(inner, "down_proj")
    if getattr(module, "has_post_expert_norm", False):
        out = module.post_expert_norm(out)
    out = out * top_k_weights.reshape(-1, 1)
    return out.reshape(tokens, choices, width).sum(dim=1).to(hidden.dtype)
