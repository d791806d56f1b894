"""Counted FLOPs and bytes against PyTorch's own counter and against hand counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from effc.cost.graph import Situation, logit_rows, stage_cost
from effc.cost.storage import cache_store, weight_store
from effc.cost.visibility import Mask, pairs
from effc.ir.program import Program, Stage
from tests.cost.models import lowered, planned, policy, quantize, store
from tests.e2e.families import FAMILIES, Family
from tests.programs import Decoder, canonical, capture, decoder, example_ids, run_text


class Products(nn.Module):
    """Every operator that is a sum of products."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 12)
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(6, 6, 3, groups=3, stride=2)]
        )
        self.transposed = nn.ConvTranspose1d(6, 4, 2, stride=2)
        self.matrix = nn.Parameter(torch.randn(12, 5))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = self.linear(x) @ self.matrix  # [B, T, 5]
        scores = torch.bmm(z, z.transpose(1, 2))  # [B, T, T]
        mixed = torch.einsum("bts,bsd->btd", scores, z)
        for convolution in self.convolutions:
            y = convolution(y)
        flat = torch.addmm(torch.zeros(5), mixed.flatten(0, 1), self.matrix[:5])
        heads = mixed.unflatten(-1, (1, 5)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(heads, heads, heads)
        return flat.sum() + self.transposed(y).sum() + attended.sum()


def counted(program: Program, inputs: dict[str, torch.Tensor]) -> int:
    """What PyTorch counts when the printed program runs; it knows no fused attention on CPUs."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run_text(program, "forward", inputs)
    return counter.get_total_flops()


def test_products_agree_with_pytorch() -> None:
    x, y = torch.randn(2, 3, 8), torch.randn(2, 4, 10)
    program = capture(Products().eval(), x, y)
    stage = program.stages["forward"]
    inputs = dict(zip((spec.name for spec in stage.inputs), (x, y), strict=True))
    cost = stage_cost(stage, Situation({"B": 2, "T": 3}))
    assert not cost.assumed and not cost.unknown
    assert cost.products == counted(program, inputs)


@pytest.mark.parametrize("name", ("Llama", "Gemma2", "Mixtral", "GPT2"))
def test_language_models_agree_with_pytorch(name: str, tmp_path: Path) -> None:
    """PyTorch counts every key of an eager attention, effc those that are seen."""
    model = next(f for f in FAMILIES if f.name == name).save(tmp_path)
    stage = planned(tmp_path, policy())[0].stages["forward"]
    for tokens in (1, 6, 30):
        cost = stage_cost(stage, Situation({"B": 2, "T": tokens}))
        assert not cost.assumed
        ids = torch.zeros(2, tokens, dtype=torch.int64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(ids, use_cache=False)
        assert cost.products + unseen(stage, 2, tokens) == counter.get_total_flops()


def unseen(stage: Stage, batch: int, tokens: int) -> int:
    """FLOPs of (query, key) pairs that masks hide, in a square of all pairs."""
    total = 0
    for node in stage.graph.nodes:
        if str(node.target) == "effc.attention.default":
            _, heads, _, width = node.meta["val"].shape
            hidden = tokens**2 - pairs(Mask(True, node.args[5]), tokens)
            total += 4 * batch * int(heads) * int(width) * hidden
    return total


def test_elementwise_work_is_small_but_counted() -> None:
    program = canonical(decoder(), *example_ids())
    cost = stage_cost(program.stages["forward"], Situation({"B": 1, "T": 8}))
    assert 0 < cost.total.flops - cost.products < 0.2 * cost.products


def test_bytes_of_a_linear_by_hand() -> None:
    program = canonical(nn.Linear(8, 12).eval(), torch.randn(2, 3, 8))
    cost = stage_cost(program.stages["forward"], Situation({"B": 5, "T": 3})).total
    assert cost.flops == 2 * 5 * 3 * 8 * 12
    assert cost.weights == 4 * (8 * 12 + 12)
    assert cost.activations == 4 * 5 * 3 * (8 + 12)
    assert cost.cache == 0


def test_a_table_is_read_where_rows_are_asked_for() -> None:
    program = canonical(nn.Embedding(100, 4).eval(), torch.zeros(2, 3, dtype=torch.int64))
    stage = program.stages["forward"]
    assert stage_cost(stage, Situation({"B": 2, "T": 3})).total.weights == 6 * 4 * 4
    assert stage_cost(stage, Situation({"B": 50, "T": 30})).total.weights == 100 * 4 * 4


def test_an_unknown_operator_is_counted_and_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erfinv(x)

    program = capture(Odd(), torch.rand(2, 3))
    cost = stage_cost(program.stages["forward"], Situation({"B": 4, "T": 3}))
    assert cost.unknown == {"aten.erfinv": 1}
    assert cost.total.flops == 12


def test_an_unknown_size_is_taken_from_the_example_and_named() -> None:
    program = canonical(nn.Linear(8, 12).eval(), torch.randn(2, 3, 8))
    cost = stage_cost(program.stages["forward"], Situation({}))
    assert cost.assumed and cost.total.flops == 2 * 2 * 3 * 8 * 12


def test_only_the_head_runs_for_single_rows() -> None:
    program = canonical(decoder(), *example_ids())
    stage = program.stages["forward"]
    rows = logit_rows(stage)
    assert {str(n.meta["path"]) for n in stage.graph.nodes if n.name in rows} == {"head"}
    sizes = {"B": 1, "T": 9}
    saved = stage_cost(stage, Situation(sizes)).products
    saved -= stage_cost(stage, Situation(sizes, logit_rows=rows)).products
    assert saved == 2 * 8 * Decoder.W * Decoder.V


@pytest.mark.parametrize("window", (None, 4))
def test_a_canonical_program_costs_what_it_will_cost_lowered(
    window: int | None, tmp_path: Path
) -> None:
    """The count before rewriting equals a count of the rewritten graph."""
    options = {} if window is None else {"sliding_window": window}
    Family("Llama" if window is None else "Mistral", options).save(tmp_path)
    chosen = policy(quantize("linear or embedding", bits=4, group=32), store("layer >= 1"))
    program, _, plan = planned(tmp_path, chosen)
    forward, decode = program.stages["forward"], lowered(program, chosen, plan).stages["decode"]
    stored = {node: size for (_, node), size in weight_store(program, plan).at.items()}
    cached = {site.node: site.per_token for site in cache_store(program, plan).sites}
    for tokens, held in ((7, 0), (1, 30), (3, 5)):
        sizes = {"B": 2, "T": tokens}
        rows = logit_rows(forward)
        before = stage_cost(forward, Situation(sizes, held, stored, cached, rows))
        after = stage_cost(decode, Situation({**sizes, "R": 1}, held))
        assert before.products == after.products
        assert before.total.cache == after.total.cache
        assert before.total.weights == after.total.weights
