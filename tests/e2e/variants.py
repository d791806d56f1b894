"""What the sweep runs: every causal language model of transformers, and variations that matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.shrink import CONTEXT, shrink


@dataclass(frozen=True)
class Variant:
    """One row of the coverage table.

    Attributes:
        name: of the configuration class without "Config", and of the variation.
        overrides: fields of the tiny configuration.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def config_name(self) -> str:
        """The configuration class."""
        return self.name.split(" ")[0] + "Config"

    def config(self) -> Any:
        """The tiny configuration."""
        import transformers

        cls = getattr(transformers, self.config_name)
        return shrink(cls, {**_OVERRIDES.get(self.name.split(" ")[0], {}), **self.overrides})


def variants() -> Iterator[Variant]:
    """Every class once, then the variations."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    for name in dict.fromkeys(cls.__name__ for cls in MODEL_FOR_CAUSAL_LM_MAPPING):
        yield Variant(name.removesuffix("Config"))
    yield from _VARIATIONS


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


_SHORT = {"original_max_position_embeddings": 32}
_LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0 + i for i in range(8)], "factor": 8.0}

_VARIATIONS: tuple[Variant, ...] = (
    Variant("Llama tied", {"tie_word_embeddings": True}),
    Variant("Llama one KV head", {"num_key_value_heads": 1}),
    Variant("Llama biases", {"attention_bias": True, "mlp_bias": True}),
    Variant("Llama rope linear", _rope("linear", factor=4.0)),
    Variant("Llama rope llama3", _rope("llama3", factor=8.0, low_freq_factor=1.0,
                                       high_freq_factor=4.0, **_SHORT)),
    Variant("Llama rope yarn", _rope("yarn", factor=8.0, **_SHORT)),
    Variant("Llama rope dynamic", _rope("dynamic", factor=4.0)),
    Variant("Llama rope longrope", _rope("longrope", **_LONG, **_SHORT)),
    Variant("Phi3 rope longrope", {**_rope("longrope", **_LONG, **_SHORT), **_SHORT}),
    Variant("Mistral no window", {"sliding_window": None}),
    Variant("Mistral window of 1", {"sliding_window": 1}),
    Variant("Mistral window of 200", {"sliding_window": 200}),
    Variant("Qwen2 windows", {"use_sliding_window": True, "max_window_layers": 1}),
    Variant("Gemma2 untied", {"tie_word_embeddings": False}),
    Variant("GPT2 scaled by layer", {"scale_attn_by_inverse_layer_idx": True}),
    Variant("GPTNeoX sequential", {"use_parallel_residual": False}),
    Variant("Falcon alibi", {"alibi": True}),
    Variant("Falcon new decoder", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    Variant("Bert not a decoder", {"is_decoder": False}),
    Variant("Roberta not a decoder", {"is_decoder": False}),
)  # fmt: skip

_MIXED = ["sliding_attention", "full_attention"] * 2
_CONVOLUTIONS = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
_ROBERTA = {"pad_token_id": 1}

# What shrinking by names gets wrong.
_OVERRIDES: dict[str, dict[str, Any]] = {
    "Bamba": {"attn_layer_indices": [1]},
    "Camembert": _ROBERTA,
    "CTRL": {"dff": 96},
    "Data2VecText": _ROBERTA,
    "Dots3Note": {"num_key_value_heads": 4},
    "Dots3NoteText": {"num_key_value_heads": 4},
    "CohereCompassText": {"num_hidden_layers": 4, "layer_types": _MIXED,
                          "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4}
                                              for kind in set(_MIXED)}},
    "Gemma3nText": {"num_hidden_layers": 4, "layer_types": _MIXED, "num_kv_shared_layers": 2,
                    "intermediate_size": [96] * 4,
                    "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0]},
    "Lfm2": _CONVOLUTIONS,
    "Lfm2Moe": {**_CONVOLUTIONS, "num_dense_layers": 1},
    "Mamba2": {"num_heads": 8, "head_dim": 16},
    "OpenAIGPT": {"n_positions": CONTEXT},
    "Reformer": {"axial_pos_embds": False},
    "Roberta": _ROBERTA,
    "RobertaPreLayerNorm": _ROBERTA,
    "XLMRoberta": _ROBERTA,
    "XLMRobertaXL": _ROBERTA,
    "Xmod": {**_ROBERTA, "languages": ["en_XX"], "default_language": "en_XX"},
    "Zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
