"""The shape of the drafters, and what one drafted token costs beside one token of the target."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import LlamaConfig, LlamaForCausalLM

from examples.zoo.lm import model as lm

HIDDEN, FFN, LAYERS = 128, 256, 2


def config() -> LlamaConfig:
    """Describe a drafter: `lm`'s kind, vocabulary and context, with half the width and depth.

    Two layers are the fewest that can look up what followed an earlier occurrence of a token.
    """
    return lm.config(HIDDEN, FFN, LAYERS)


@dataclass(frozen=True)
class Cost:
    """What computing one token takes, its attention over earlier tokens aside.

    Attributes:
        parameters: Weights, the tied embedding counted once.
        flops: Two per weight that is multiplied with.
        bytes: What is read at batch 1 with weights in fp16.
    """

    parameters: int
    flops: int
    bytes: int


def cost(model: LlamaForCausalLM) -> Cost:
    """Count; the embedding table is read whole because it is the head as well."""
    every = sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)
    return Cost(parameters=every, flops=2 * matrices, bytes=2 * every)
