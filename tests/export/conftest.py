"""A small program with a cache, ties, model files and weights of many types."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import fx

from effc.ir.program import (
    CacheSite,
    InputSpec,
    ModelInfo,
    Program,
    RetentionGroup,
    ScheduleEntry,
    Stage,
)
from effc.ir.weights import Derivation, Weight, Weights

ATEN = torch.ops.aten


def make_stage() -> Stage:
    """ids -> embedding -> linear, with a plane of a cache passed through."""
    graph = fx.Graph()
    ids, plane = graph.placeholder("ids"), graph.placeholder("k0")
    table = graph.create_node("get_attr", "model.embed.weight", name="table")
    hidden = graph.call_function(ATEN.embedding.default, (table, ids))
    logits = graph.call_function(ATEN.linear.default, (hidden, table))
    logits.meta |= {"layer": 0, "path": "model.head", "kernel": "reference"}
    logits.meta |= {"shape": ("B", "T", 7), "dtype": "float32"}
    graph.output((logits, plane))
    inputs = (
        InputSpec("ids", torch.int64, ("B", "T")),
        InputSpec("k0", torch.float16, ("pages", 2, 16, 4), role="state"),
    )
    return Stage("decode", graph, inputs, ("logits", "k0"))


def make_weights() -> Weights:
    """Odd sizes of every element size, a scalar, nothing at all, and results of one derivation."""
    generator = torch.Generator().manual_seed(0)
    values = {
        "model.embed.weight": torch.randn(7, 4, generator=generator),
        "flags": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5, generator=generator).half(),
        "brain": torch.randn(5, generator=generator).bfloat16(),
        "double": torch.randn(3, generator=generator).double(),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "strided": torch.randn(4, 6, generator=generator).t(),
        "eight": torch.randn(9, generator=generator).to(torch.float8_e4m3fn),
    }
    weights = Weights({name: Weight.of(value) for name, value in values.items()})
    codes, scale = torch.arange(11, dtype=torch.uint8), torch.randn(2, generator=generator)
    derived = Derivation(lambda: {"codes": codes, "scale": scale})
    weights.set("codes", derived.weight("codes", (11,), torch.uint8, "packing"))
    weights.set("scale", derived.weight("scale", (2,), torch.float32, "packing"))
    weights.ties = {"lm_head.weight": "model.embed.weight"}
    return weights


@pytest.fixture
def program(tmp_path: Path) -> Program:
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer.json").write_text('{"version": "1.0"}')
    (source / "config.json").write_text('{"model_type": "toy"}')
    return Program(
        stages={"decode": make_stage()},
        weights=make_weights(),
        info=ModelInfo(
            family="toy",
            source=str(source),
            context=64,
            vocabulary=7,
            dtype=torch.float16,
            eos=(2, 3),
            bos=1,
            files={p.name: p for p in source.iterdir()},
        ),
        cache_sites=(CacheSite(0, "model.attn", None, 2, 4, 4, "float16", "float16", "window8"),),
        groups=(RetentionGroup("window8", window=8),),
        schedule=(ScheduleEntry("every", "evict_window", {"group": "window8", "n": 4}),),
        page_size=16,
        loop="autoregressive",
        notes=["a remark\nin two lines"],
    )
