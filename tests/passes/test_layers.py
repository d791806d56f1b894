"""Layers read off the dataflow are the layers of the module."""

from __future__ import annotations

import pytest
import torch
import transformers

from effc.canonical import canonical_program
from effc.ir.journal import Journal
from effc.passes.raising.layers import NumberLayers
from effc.spec.schema import Policy

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 64}
MODELS = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, num_key_value_heads=2, intermediate_size=48)
    ),
    "gpt_neox": lambda: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**SIZES, intermediate_size=48)
    ),
    "phi": lambda: transformers.PhiForCausalLM(
        transformers.PhiConfig(**SIZES, intermediate_size=48)
    ),
}


@pytest.mark.parametrize("family", MODELS)
def test_layers_by_dataflow_are_those_of_the_modules(family: str) -> None:
    torch.manual_seed(0)
    program, _, _ = canonical_program(MODELS[family]().eval(), Policy())
    named = {n: n.meta["layer"] for _, n in program.nodes() if str(n.target).startswith("effc")}
    named |= {n: n.meta["layer"] for _, n in program.nodes() if "linear" in str(n.target)}
    assert set(named.values()) - {None} == {0, 1, 2}
    for _, node in program.nodes():
        node.meta["layer"] = None
    result = NumberLayers()(program, Journal())
    assert [outcome.place for outcome in result.outcomes] == ["forward: 3 layers"]
    assert {n: n.meta["layer"] for n in named} == named


def test_known_layers_are_left_alone() -> None:
    program, _, _ = canonical_program(MODELS["llama"]().eval(), Policy())
    assert NumberLayers()(program, Journal()).outcomes == []
