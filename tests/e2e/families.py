"""Tiny checkpoints of many architectures, written by transformers' own classes.

Weights are random but lively: large enough for attention to choose between tokens and for the best
token to lead the second-best by far more than rounding; norms and biases are no identities.
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
        seed: of the weights; one under which greedy answers are neither dull nor close calls.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def build(self) -> Any:
        """A random model of this family in evaluation mode, fp32."""
        import transformers

        config = getattr(transformers, f"{self.name}Config")(**{**_COMMON, **self.options})
        torch.manual_seed(self.seed)
        cls: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        # The eager functions are the library's definition: fused attention may leave out soft
        # caps, fused experts exist in few precisions.
        model = cls._from_config(
            config, attn_implementation="eager", experts_implementation="eager"
        )
        return enliven(model.float().eval())

    def save(self, folder: Path) -> Any:
        """Build, save and return the model."""
        model = self.build()
        model.save_pretrained(folder)
        return model


def enliven(model: Any, spread: float = 0.2) -> Any:
    """Give a freshly initialized model weights under which every part of it matters.

    Args:
        model: changed in place.
        spread: standard deviation of the matrices; 0.2 suits a width of 64, where the products of
            normalized activations then have a deviation of 1.6. Embeddings get a quarter: a tied
            head would else find the last token again and again.
    """
    tables = {m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    corrections = [b for name, b in model.named_buffers() if name.endswith("bias")]
    with torch.no_grad():
        for parameter in dict.fromkeys([*model.parameters(), *corrections]):
            if not parameter.is_floating_point():
                continue
            if parameter.dim() >= 2:
                parameter.normal_(std=spread / 4 if parameter in tables else spread)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=spread)
    return model


FAMILIES: tuple[Family, ...] = (
    Family("Llama"),
    Family("Mistral", {"sliding_window": 24}),
    Family("Qwen2"),
    Family("Qwen3"),
    Family("Gemma2", {"sliding_window": 24, "query_pre_attn_scalar": 16,
                      "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}),
    Family("Gemma3Text", {"sliding_window": 24, "query_pre_attn_scalar": 16,
                          "num_hidden_layers": 6}),
    Family("Phi3"),
    Family("GPT2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    Family("GPTNeoX", {"rotary_pct": 0.5}, seed=2),
    Family("Olmo2"),
    Family("StableLm", {"partial_rotary_factor": 0.5}),
    Family("Granite", {"attention_multiplier": 0.2, "residual_multiplier": 0.7,
                       "embedding_multiplier": 3.0, "logits_scaling": 2.0}),
    Family("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, seed=1),
    Family("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}),
)  # fmt: skip
