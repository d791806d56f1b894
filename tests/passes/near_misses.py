"""For every registered pass: what it must leave alone, and what it almost rewrites.

The programs that a pass must rewrite are in `cases.py`. Here each pass has a program in which it
must find nothing, and programs that people write by accident: renamed, or slightly different from
what the pass knows. A renamed one is rewritten all the same, for matching follows the dataflow. A
different one keeps its numbers, and the reason is told: as a near miss, as a skipped place, or as
a refusal.
"""

from __future__ import annotations

from collections.abc import Callable

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
from tests.passes.case import values
from tests.passes.dequantized import NEAR_DEQUANTIZED
from tests.passes.near import RENAMED, SAID_BY_NOBODY, Near, NearMisses, one_liner, program
from tests.passes.near_decomposed import NEAR_DECOMPOSED
from tests.passes.near_exported import NEAR_EXPORTED
from tests.programs import capture, decoder, example_ids, run_passes

# Normalization


def unread(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x.sin()


def _with_dead_code() -> Program:
    made = program(unread)()
    stage = made.stages["forward"]
    last = stage.placeholder("x")
    with stage.graph.inserting_before(stage.output_node):
        node = stage.graph.call_function(
            torch.ops.aten.cos.default, (last,), name="called_anything"
        )
        node.meta.update(last.meta)
    return made


def cut(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.ops.aten.slice(x, 1, 0, 99).sin() + x.to(torch.float64)


def shifted_scale(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> Tensor:
    return x * (scale + 1.0)


def outer_table(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> Tensor:
    return x @ torch.outer(scale, scale)


# Linears


def product(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return x @ w


def scaled_product(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return x @ (w * y.sum())


def summed(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("bhtd,ed->bhte", x, w)


# Attention


def fused(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, y, z, is_causal=True)


def three_dimensional(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[:, 0], y[:, 0], z[:, 0])


def other_keys(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[:, :, 1:], y, z, is_causal=True)


# Norms


def rms(x: Tensor, y: Tensor, z: Tensor, gain: Tensor) -> Tensor:
    return gain * (x * torch.rsqrt(x.pow(2).mean([-1], keepdim=True) + 1e-6))


def divided(x: Tensor, y: Tensor, z: Tensor, gain: Tensor) -> Tensor:
    return gain * (x / torch.sqrt(x.pow(2).mean([-1], keepdim=True) + 1e-6))


def across(x: Tensor, y: Tensor, z: Tensor, gain: Tensor) -> Tensor:
    return gain * (x * torch.rsqrt(x.pow(2).mean([1], keepdim=True) + 1e-6))


def computed_gain(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return y * (x * torch.rsqrt(x.pow(2).mean([-1], keepdim=True) + 1e-6))


def layer_norm(x: Tensor, y: Tensor, z: Tensor, gain: Tensor) -> Tensor:
    return F.layer_norm(x, [8], gain)


# Rotations


def halves(x: Tensor, at: int = 4) -> Tensor:
    return torch.cat([-x[..., at:], x[..., :at]], -1)


def rotated(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x * y + halves(x) * z


def backwards(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x * y - halves(x) * z


def unevenly(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x * y + halves(x, 2) * z


def other_half_negated(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x * y + torch.cat([x[..., 4:], -x[..., :4]], -1) * z


# Gates


def gated(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return y * F.silu(x)


def mish(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return F.mish(x) * y


def squared(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    activated = F.relu(x)
    return activated * activated


def quick(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.sigmoid(x * 1.702) * x


def broadcast(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return F.silu(x) * y[:, :1]


# Quantization, cache, lowering


def projected(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return F.linear(x, w)


def _quantize(activations: str) -> QuantizeWeights:
    return QuantizeWeights({("forward", "linear"): Rtn(4, 16)}, activations)


def _decoder() -> Program:
    return capture(decoder(), *example_ids())


def _cached() -> Program:
    made = _decoder()
    run_passes(made, InsertCache(page_size=4))
    return made


def _cached_in_place() -> Program:
    made = _cached()
    run_passes(made, Bufferize())
    return made


class Bidirectional(nn.Module):
    """A decoder's inputs and outputs around attention that looks ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        h = self.table(ids).unsqueeze(1)
        h = torch.ops.effc.attention(h, h, h, None, False, None, None, 1.0, None, None)
        return h.squeeze(1) @ self.table.weight.T


class Pooled(nn.Module):
    """Causal attention, and a mean over all tokens beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        e = self.table(ids)
        h = e.unsqueeze(1)
        h = torch.ops.effc.attention(h, h, h, None, True, None, None, 1.0, None, None)
        return (h.squeeze(1) + e.mean(1, keepdim=True)) @ self.table.weight.T


def _decoding(module: Callable[[], nn.Module]) -> Callable[[], Program]:
    return lambda: capture(module(), *example_ids())


def _packed(activations: str) -> Callable[[], Program]:
    def build() -> Program:
        made = program(projected, values(6, 8))()
        run_passes(made, _quantize(activations))
        return made

    return build


SQUARE, ROW = values(8, 8), values(8)
ALONE = program(one_liner)

NEAR_MISSES: tuple[NearMisses, ...] = (
    NearMisses(
        "effc.passes.normalize.no_ops:RemoveNoOps",
        RemoveNoOps,
        ALONE,
        (Near("a slice past the end", program(cut), RENAMED),),
    ),
    NearMisses(
        "effc.passes.normalize.fold_constants:FoldConstants",
        FoldConstants,
        program(product, SQUARE),
        (
            Near("a scale under another name", program(shifted_scale, ROW), RENAMED),
            Near("an outer product", program(outer_table, ROW), "bytes and the weights it is"),
        ),
    ),
    NearMisses(
        "effc.passes.normalize.dead_code:RemoveDeadCode",
        RemoveDeadCode,
        ALONE,
        (Near("dead code under another name", _with_dead_code, RENAMED),),
    ),
    NearMisses(
        "effc.passes.raising.linear:RaiseLinear",
        RaiseLinear,
        ALONE,
        (
            Near("other names", program(product, SQUARE), RENAMED),
            Near("a computed factor", program(scaled_product, SQUARE), "is computed, not a weight"),
            Near("an einsum", program(summed, SQUARE), "an einsum with a weight is not raised"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.attention:RaiseAttention",
        RaiseAttention,
        ALONE,
        (
            Near("other names", program(fused), RENAMED),
            Near("three dimensions", program(three_dimensional), "are not [B, H, T, D]"),
            Near("keys of another sequence", program(other_keys), "keys of another sequence"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.rms_norm:RaiseNorms",
        RaiseNorms,
        program(layer_norm, ROW),
        (
            Near("other names", program(rms, ROW), RENAMED),
            Near("a division", program(divided, ROW), SAID_BY_NOBODY),
            Near("another dimension", program(across, ROW), "the mean runs over [1]"),
            Near("a computed gain", program(computed_gain), "y is no weight vector"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.rope:RaiseRope",
        RaiseRope,
        ALONE,
        (
            Near("other names", program(rotated), RENAMED),
            Near("the other way", program(backwards), "turns the other way"),
            Near("an uneven cut", program(unevenly), "are not the two halves of 8"),
            Near("the other half", program(other_half_negated), "not aten.neg.default"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.gated_activation:RaiseGatedActivation",
        RaiseGatedActivation,
        ALONE,
        (
            Near("other names", program(gated), RENAMED),
            Near("a square", program(squared), "no second activation"),
            Near("quick GELU", program(quick), "no second activation"),
            Near("another activation", program(mish), "not this activation"),
            Near("a broadcast value", program(broadcast), "gate and value have different shapes"),
        ),
    ),
    NearMisses(
        "effc.passes.quantization.quantize_weights:QuantizeWeights",
        QuantizeWeights,
        program(projected, values(6, 8)),
        (
            Near(
                "other names",
                program(projected, values(6, 8)),
                RENAMED,
                lambda: _quantize("source"),
            ),
        ),
    ),
    NearMisses(
        "effc.passes.caching.insert_cache:InsertCache",
        lambda: InsertCache(page_size=4),
        ALONE,
        (
            Near("other names", _decoder, RENAMED),
            Near("attention that looks ahead", _decoding(Bidirectional), "is not causal"),
            Near("a mean over tokens", _decoding(Pooled), "would compute something else"),
        ),
        refusal="the program is no decoder: it needs a stage 'forward' of ids, positions",
    ),
    NearMisses(
        "effc.passes.lowering.bufferize:Bufferize",
        Bufferize,
        ALONE,
        (
            Near("other names", _cached, RENAMED),
            Near("writes in place already", _cached_in_place, SAID_BY_NOBODY),
        ),
    ),
    NearMisses(
        "effc.passes.lowering.select_kernels:SelectKernels",
        SelectKernels,
        ALONE,
        (
            Near("a packed linear", _packed("source"), RENAMED),
            Near(
                "activations that the kernel lacks",
                _packed("int8"),
                "no kernel for effc::quantized_linear on cuda can serve this call (triton: ",
                lambda: SelectKernels("cuda"),
            ),
        ),
    ),
    *NEAR_DECOMPOSED,
    *NEAR_DEQUANTIZED,
    *NEAR_EXPORTED,
)  # fmt: skip
