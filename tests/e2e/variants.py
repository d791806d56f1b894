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

# What shrinking by names gets wrong.
_OVERRIDES: dict[str, dict[str, Any]] = {
    "CTRL": {"dff": 96},
    "Llama4Text": {"attention_chunk_size": 8, "no_rope_layers": [1, 1, 0]},
    "OpenAIGPT": {"n_positions": CONTEXT},
}
