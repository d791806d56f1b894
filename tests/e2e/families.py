"""Tiny checkpoints of many architectures, written by transformers' own classes.

Weights are random and scaled up, so that the distance between the best and the second-best token
exceeds rounding errors by far and greedy outputs can be compared token by token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 199

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: of the configuration class, without "Config".
        options: what differs from the common tiny configuration.
        attention: the implementation that serves as the oracle.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    attention: str = "eager"

    def build(self, seed: int = 0) -> Any:
        """A random model of this family in evaluation mode, fp32."""
        import transformers

        config = getattr(transformers, f"{self.name}Config")(**{**_COMMON, **self.options})
        torch.manual_seed(seed)
        cls = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        model = cls._from_config(config, attn_implementation=self.attention).float().eval()
        return scale_up(model)

    def save(self, folder: Path, seed: int = 0) -> Any:
        """Build, save and return the model."""
        model = self.build(seed)
        model.save_pretrained(folder)
        return model


def scale_up(model: Any, factor: float = 4.0) -> Any:
    """Make logits spread: scale matrices, leave norms and biases."""
    with torch.no_grad():
        for parameter in dict.fromkeys(model.parameters()):
            if parameter.dim() >= 2:
                parameter.mul_(factor)
    return model


FAMILIES: tuple[Family, ...] = (
    Family("Llama"),
    Family("Mistral", {"sliding_window": 24}),
    Family("Qwen2"),
    Family("Qwen3"),
    Family("Gemma2", {"sliding_window": 24, "query_pre_attn_scalar": 16}),
    Family("Gemma3Text", {"sliding_window": 24, "query_pre_attn_scalar": 16, "num_hidden_layers": 6}),
    Family("Phi3"),
    Family("GPT2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    Family("GPTNeoX", {"rotary_pct": 0.5}),
    Family("Olmo2"),
    Family("StableLm", {"partial_rotary_factor": 0.5}),
    Family("Granite", {"attention_multiplier": 0.2, "residual_multiplier": 0.7,
                       "embedding_multiplier": 3.0, "logits_scaling": 2.0}),
    Family("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}),
)  # fmt: skip
