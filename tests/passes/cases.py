"""One case per registered pass: a program with what it rewrites and what it must leave alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effc.ir.program import Program
from effc.passes.caching.insert_cache import InsertCache
from effc.passes.lowering.bufferize import Bufferize
from effc.passes.lowering.select_kernels import SelectKernels
from effc.passes.normalize.dead_code import RemoveDeadCode
from effc.passes.normalize.fold_constants import FoldConstants
from effc.passes.normalize.no_ops import RemoveNoOps
from effc.passes.quantization.quantize_weights import QuantizeWeights
from effc.passes.quantization.rtn import Rtn
from effc.passes.raising.attention import RaiseAttention
from effc.passes.raising.gated_activation import RaiseGatedActivation
from effc.passes.raising.linear import RaiseLinear
from effc.passes.raising.rms_norm import RaiseNorms
from effc.passes.raising.rope import RaiseRope
from tests.passes.case import PassCase, captured, named, of_module, values
from tests.passes.decomposed import DECOMPOSED
from tests.passes.dequantized import DEQUANTIZED
from tests.passes.exported import EXPORTED
from tests.programs import Inputs, capture, decode_inputs, decoder, example_ids, run_passes

aten = torch.ops.aten


class NoOps(nn.Module):
    """Removed: conversions, slices, views, dropout that change nothing."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(aten.to.dtype(x, torch.float32), 0.5, self.training)
        y = aten.view(aten.slice(y, 1, 0, 99), [y.shape[0], 4])
        kept = aten.slice(aten.to.dtype(y, torch.float16), 1, 1, 3)
        return kept + aten.expand(aten.slice(y, 1, 0, 1), [-1, 2])


class DeadCode(nn.Module):
    """Removed: a chain that ends nowhere."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


def dead_program() -> Program:
    """Dead code is planted by hand, for the capture leaves little of it."""
    program = capture(DeadCode(), values(2, 4))
    stage = program.stages["forward"]
    last = stage.placeholder("x")
    with stage.graph.inserting_before(stage.output_node):
        for i in range(3):
            meta = last.meta
            last = stage.graph.call_function(aten.cos.default, (last,), name=f"unread_{i}")
            last.meta.update(meta)
    return program


class Constants(nn.Module):
    """Folded: what depends on weights alone and is no larger; kept: outer products, transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(values(4))
        self.table = nn.Parameter(values(4, 4, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        folded = (self.scale + 1.0).exp()
        outer = self.scale[:, None] * (self.scale * 0.5)
        return x * folded @ outer @ self.table.T + self.scale * x


class Products(nn.Module):
    """Raised: products with a weight; kept: of two activations, and scaled ones."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(values(4, 6))
        self.table = nn.Parameter(values(5, 6, seed=1))
        self.b = nn.Parameter(values(6, seed=2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = torch.addmm(self.b, x, self.w)
        scaled = torch.addmm(self.b, x, self.w, beta=2)
        return h @ self.table.T, x @ self.w, scaled, x @ x.T, h @ (self.table * x.sum()).T


class Attentions(nn.Module):
    """Raised: torch's fused attention; kept: three dimensions, causal over another sequence."""

    def forward(self, q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        grouped = F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
        masked = F.scaled_dot_product_attention(q, q, q, attn_mask=mask, scale=0.3)
        flat = F.scaled_dot_product_attention(q[:, 0], q[:, 0], q[:, 0])
        shorter = F.scaled_dot_product_attention(q[:, :2, 1:], k, k, is_causal=True)
        return grouped, masked, flat, shorter


class Norms(nn.Module):
    """Raised: both ways to round; kept: another dimension, 16-bit sums, a bias in between."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(values(6).half())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        normal = self.normal(x.float(), -1)
        first = self.weight * normal.to(x.dtype)
        last = (normal * self.weight.float()).to(x.dtype)
        across = self.normal(x.float(), 0).to(x.dtype) * self.weight
        narrow = self.normal(x, -1) * self.weight
        return first, last, across, narrow, (normal + 1.0).to(x.dtype) * self.weight

    @staticmethod
    def normal(x: Tensor, dim: int) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean([dim], keepdim=True) + 1e-6)


class Ropes(nn.Module):
    """Raised: halves and pairs; kept: uneven cuts, a scaled turn."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        half = self.halves(x, 4)
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        return (
            x * cos + half * sin,
            sin * turned + cos * x,
            x * cos + self.halves(x, 2) * sin,
            torch.add(x * cos, half * sin, alpha=2),
        )

    @staticmethod
    def halves(x: Tensor, cut: int) -> Tensor:
        return torch.cat([-x[..., cut:], x[..., :cut]], -1)


class Gates(nn.Module):
    """Raised: an activation times a value; kept: times itself, a weight, a broadcast value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(values(6))

    def forward(self, g: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        return (
            F.silu(g) * u,
            u * F.gelu(g, approximate="tanh"),
            F.gelu(g) * u,
            g * torch.sigmoid(g),
            F.relu(g) * self.weight,
            F.relu(g) * u[:, :1],
        )


class Quantizable(nn.Module):
    """Rewritten: an embedding, a linear and experts; kept: a linear that nobody chose."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 20)
        self.kept = nn.Linear(20, 20)
        self.chosen = nn.Linear(20, 8)
        self.experts = nn.Parameter(values(3, 8, 5))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        y = self.chosen(self.kept(self.table(ids))).flatten(0, 1)
        return torch.ops.effc.grouped_linear(y, self.experts, ids.flatten() % 3, None, True), y


def _quantizable() -> Program:
    torch.manual_seed(2)
    return capture(Quantizable(), torch.tensor([[1, 2, 0], [4, 5, 6]]))


def _quantize() -> QuantizeWeights:
    chosen = {("forward", name): Rtn(4, 16) for name in ("embedding", "linear_1")}
    chosen["forward", "grouped_linear"] = Rtn(8, "row", symmetric=False)
    return QuantizeWeights(chosen, activations="source")


def _decoder() -> Program:
    return capture(decoder(window=3), *example_ids())


def _cached() -> Program:
    program = captured(_decoder).copy()
    run_passes(program, InsertCache(page_size=4))
    return program


def _half(*shape: int) -> Tensor:
    return values(*shape).half()


def _decode() -> Inputs:
    ids, _ = example_ids(1, 7)
    return decode_inputs(captured(_cached), ids)


PAIRS = values(1, 1, 3, 8, seed=1), values(1, 1, 3, 8, seed=2)
IDS = example_ids(1, 7)

CASES: tuple[PassCase, ...] = (
    PassCase(
        "effc.passes.normalize.no_ops:RemoveNoOps",
        RemoveNoOps,
        **of_module(NoOps, x=values(3, 4)),
        applied=1,
    ),
    PassCase(
        "effc.passes.normalize.fold_constants:FoldConstants",
        FoldConstants,
        **of_module(Constants, x=values(3, 4)),
        applied=4,
    ),
    PassCase(
        "effc.passes.normalize.dead_code:RemoveDeadCode",
        RemoveDeadCode,
        dead_program,
        named(x=values(3, 4)),
        applied=1,
    ),
    PassCase(
        "effc.passes.raising.linear:RaiseLinear",
        RaiseLinear,
        **of_module(Products, x=values(3, 4)),
        applied=3,
    ),
    PassCase(
        "effc.passes.raising.attention:RaiseAttention",
        RaiseAttention,
        **of_module(Attentions, q=values(2, 4, 5, 8), k=values(2, 2, 5, 8), mask=values(5, 5) > 0),
        applied=2,
    ),
    PassCase(
        "effc.passes.raising.rms_norm:RaiseNorms",
        RaiseNorms,
        **of_module(Norms, x=_half(3, 6)),
        applied=2,
    ),
    PassCase(
        "effc.passes.raising.rope:RaiseRope",
        RaiseRope,
        **of_module(Ropes, x=values(2, 3, 3, 8), cos=PAIRS[0], sin=PAIRS[1]),
        applied=2,
    ),
    PassCase(
        "effc.passes.raising.gated_activation:RaiseGatedActivation",
        RaiseGatedActivation,
        **of_module(Gates, g=values(3, 6), u=values(3, 6, seed=1)),
        applied=3,
    ),
    PassCase(
        "effc.passes.quantization.quantize_weights:QuantizeWeights",
        _quantize,
        _quantizable,
        named(ids=torch.tensor([[1, 2, 0, 3]])),
        applied=3,
    ),
    PassCase(
        "effc.passes.caching.insert_cache:InsertCache",
        lambda: InsertCache(page_size=4),
        _decoder,
        named(ids=IDS[0], positions=IDS[1]),
        applied=3,
    ),
    PassCase("effc.passes.lowering.bufferize:Bufferize", Bufferize, _cached, _decode, applied=4),
    PassCase(
        "effc.passes.lowering.select_kernels:SelectKernels",
        SelectKernels,
        _cached,
        _decode,
        applied=8,
    ),
    *DECOMPOSED,
    *DEQUANTIZED,
    *EXPORTED,
)
