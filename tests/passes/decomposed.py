"""Cases of the passes that recognize what exporters and hand-written models take apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effc.passes.normalize.layouts import JoinLayouts
from effc.passes.normalize.scalars import InlineScalars
from effc.passes.normalize.splits import SlicesOfSplits
from effc.passes.raising.activations import RaiseActivations
from effc.passes.raising.attention_products import RaiseAttentionProducts
from effc.passes.raising.bias import RaiseBias
from effc.passes.raising.grouped_queries import RaiseGroupedQueries
from effc.passes.raising.layer_norm import RaiseLayerNorm
from effc.passes.raising.mean_squares import RaiseMeanSquares
from effc.passes.raising.merged_heads import RaiseMergedHeads
from tests.passes.case import PassCase, of_module, values

aten = torch.ops.aten


class Scalars(nn.Module):
    """Inlined: constants of one element, filled tensors; kept: a wider type, a longer shape."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.125))
        self.register_buffer("one", torch.tensor([1.0]))
        self.register_buffer("wide", torch.tensor([2.0], dtype=torch.float64))
        self.register_buffer("deep", torch.ones(1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scaled = self.scale * x - self.one
        inverse = self.one / (x * x + 1.0)
        guarded = torch.where(x.isnan(), torch.zeros_like(x), scaled)
        return self.scale - scaled, inverse, guarded, x * self.wide, x + self.deep


class Splits(nn.Module):
    """Read as slices: splits, chunks; kept: parts whose number depends on the input."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        a, b, c = aten.split_with_sizes(x, [2, 3, 1], -1)
        d, e = torch.chunk(x, 2, dim=1)
        first, _ = torch.max(x, 1)
        return a * a + 1, b - 1, c, d * e, first


class Layouts(nn.Module):
    """Joined: permutations, shapes that come back; kept: shapes that lead to a new one."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        turned = x.permute(0, 2, 3, 1).permute(0, 1, 3, 2)
        same = x.transpose(1, 2).transpose(2, 1)
        quarters = x.reshape(x.shape[0], 3, 16).reshape(x.shape[0], 3, 4, 4)
        back = x.flatten(1, 2).unflatten(1, (3, 4 // 2))
        return turned + 1, same - 1, quarters, back, x.flatten(0, 1).unflatten(1, (1, 2))


class Biases(nn.Module):
    """Joined: a vector added on either side; kept: a second one, a row per token."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(values(6, 4))
        self.b = nn.Parameter(values(6, seed=1))
        self.rows = nn.Parameter(values(3, 6, seed=2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        left = self.b + F.linear(x, self.w)
        twice = F.linear(x, self.w, self.b) + self.b
        return left, F.linear(x, self.w) + self.b, twice, F.linear(x, self.w) + self.rows[:1]


class MergedHeads(nn.Module):
    """Attention over [B * H, T, D] in two spellings; kept: a product over merged tokens."""

    def forward(self, q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        b, h, t, d = q.shape
        flat = (q * 0.5).reshape(b * h, t, d)
        keys = k.reshape(b * h, t, d)
        scores = torch.bmm(flat, keys.transpose(1, 2)).view(b, h, t, t) + mask
        weights = torch.softmax(scores.view(b * h, t, t), -1)
        added = mask.expand(b, h, t, t).reshape(b * h, t, t)
        other = torch.baddbmm(added, flat, keys.transpose(1, 2), alpha=0.5).softmax(-1)
        tokens = torch.bmm(q.reshape(b, h * t, d), k.reshape(b, h * t, d).transpose(1, 2))
        return torch.bmm(weights, keys).view(b, h, t, d), (other @ keys).view(b, h, t, d), tokens


class AttentionProducts(nn.Module):
    """Raised: scales, caps, masks and guards of all kinds; kept: other softmaxes, tokens apart."""

    def forward(self, q: Tensor, k: Tensor, mask: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        plain = torch.softmax(q @ k.permute(0, 1, 3, 2) / math.sqrt(8), -1) @ k
        sided = (q * 0.6) @ (k.transpose(2, 3) * 0.6) + bias
        weights = sided.softmax(-1)
        guarded = aten.where.ScalarSelf(weights.isnan(), 0.0, weights) @ k
        capped = torch.tanh(q @ k.transpose(2, 3) * 0.3 / 20.0) * 20.0
        hidden = aten.where.ScalarOther(mask, capped, -math.inf).masked_fill(~mask, -1e9)
        shifted = hidden - hidden.amax(-1, keepdim=True)
        both = aten.where.ScalarOther(mask, q @ k.transpose(2, 3), -math.inf) + bias
        across = torch.softmax(q @ k.transpose(2, 3), 1) @ k
        soft = (q @ k.transpose(2, 3)).masked_fill(mask, -1.0).softmax(-1) @ k
        return plain, guarded, shifted.softmax(-1) @ k, both.softmax(-1) @ k, across, soft


class GroupedQueries(nn.Module):
    """Shared: copies of every spelling; kept: whole sets of heads repeated, uneven copies."""

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        b, h, t, d = k.shape
        spread = k.unsqueeze(2).expand(b, h, 2, t, d).reshape(b, 2 * h, t, d)
        woven = torch.repeat_interleave(k, 2, dim=1)
        copied = torch.cat([k.unsqueeze(2)] * 2, 2).reshape(b, 2 * h, t, d)
        turned = woven.transpose(2, 3).transpose(2, 3)
        late = k.transpose(1, 2).unsqueeze(3).expand(b, t, h, 2, d).reshape(b, t, 2 * h, d)
        one = k[:, :1].expand(b, 4, t, d)
        return (
            attend(q, spread, woven),
            attend(q, turned, copied),
            attend(q, late.permute(0, 2, 1, 3), late.permute(0, 2, 1, 3)),
            attend(q, one, one),
            attend(q, k.repeat(1, 2, 1, 1), woven),
            attend(q, one, woven),
        )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of everything to everything."""
    return torch.ops.effc.attention(q, k, v, None, False, None, None, 0.3, None, None)


class MeanSquares(nn.Module):
    """Rewritten: squares, roots and variances; kept: Bessel's correction, a norm's own root."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        product = torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)
        power = torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        biased = torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-6)
        sample = torch.sqrt(x.var(-1, keepdim=True) + 1e-6)
        inverse = (x.square().mean(-1, keepdim=True) + 1e-6).pow(-0.5)
        return x / product, x * power.reciprocal(), x / biased, x / sample, inverse


class LayerNorms(nn.Module):
    """Raised: with and without weight and bias; kept: another dimension, another mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(values(8))
        self.bias = nn.Parameter(values(8, seed=1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        full = self.normal(x, -1) * self.weight + self.bias
        other = (x - x.mean(1, keepdim=True)) * self.root(x - x.mean(-1, keepdim=True), -1)
        return full, self.normal(x, -1), self.normal(x, 1), other

    def normal(self, x: Tensor, dim: int) -> Tensor:
        return (x - x.mean(dim, keepdim=True)) * self.root(x - x.mean(dim, keepdim=True), dim)

    @staticmethod
    def root(d: Tensor, dim: int) -> Tensor:
        return torch.rsqrt(d.pow(2).mean([dim], keepdim=True) + 1e-5)


class Activations(nn.Module):
    """Raised: SiLU, both GELUs; kept: a slope of 1.702, a wrong constant."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        cube = 0.7978845608028654 * (x + 0.044715 * x.pow(3))
        return (
            x * torch.sigmoid(x),
            x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
            x * (torch.erf(x * 0.7071067811865476) + 1) / 2,
            0.5 * x * (1.0 + torch.tanh(cube)),
            0.5 * x * (1.0 + torch.tanh(x * 0.7978845608028654 * (1 + 0.044715 * x * x))),
            x * torch.sigmoid(1.702 * x),
            x * 0.5 * (1.0 + torch.erf(x / 1.4)),
        )


BIAS = values(1, 1, 5, 5, seed=4)
DECOMPOSED: tuple[PassCase, ...] = (
    PassCase(
        "effc.passes.normalize.scalars:InlineScalars",
        InlineScalars,
        **of_module(Scalars, x=values(3, 4)),
        applied=5,
    ),
    PassCase(
        "effc.passes.normalize.splits:SlicesOfSplits",
        SlicesOfSplits,
        **of_module(Splits, x=values(3, 6)),
        applied=5,
    ),
    PassCase(
        "effc.passes.normalize.layouts:JoinLayouts",
        JoinLayouts,
        **of_module(Layouts, x=values(5, 3, 2, 8)),
        applied=3,
    ),
    PassCase(
        "effc.passes.raising.bias:RaiseBias",
        RaiseBias,
        **of_module(Biases, x=values(4, 4)),
        applied=2,
    ),
    PassCase(
        "effc.passes.raising.merged_heads:RaiseMergedHeads",
        RaiseMergedHeads,
        **of_module(MergedHeads, q=values(2, 4, 5, 8), k=values(2, 4, 5, 8, seed=1), mask=BIAS),
        applied=11,
    ),
    PassCase(
        "effc.passes.raising.attention_products:RaiseAttentionProducts",
        RaiseAttentionProducts,
        **of_module(
            AttentionProducts,
            q=values(2, 4, 5, 8),
            k=values(2, 4, 5, 8, seed=1),
            mask=torch.ones(1, 1, 5, 5).tril().bool(),
            bias=BIAS,
        ),
        applied=4,
    ),
    PassCase(
        "effc.passes.raising.grouped_queries:RaiseGroupedQueries",
        RaiseGroupedQueries,
        **of_module(GroupedQueries, q=values(3, 4, 5, 8), k=values(3, 2, 5, 8, seed=1)),
        applied=4,
    ),
    PassCase(
        "effc.passes.raising.mean_squares:RaiseMeanSquares",
        RaiseMeanSquares,
        **of_module(MeanSquares, x=values(3, 8)),
        applied=7,
    ),
    PassCase(
        "effc.passes.raising.layer_norm:RaiseLayerNorm",
        RaiseLayerNorm,
        **of_module(LayerNorms, x=values(3, 4, 8)),
        applied=4,
    ),
    PassCase(
        "effc.passes.raising.activations:RaiseActivations",
        RaiseActivations,
        **of_module(Activations, x=values(3, 8)),
        applied=5,
    ),
)
