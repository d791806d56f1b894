"""Near misses of the passes that recognize what exporters take apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

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
from tests.passes.case import values
from tests.passes.decomposed import attend
from tests.passes.near import RENAMED, SAID_BY_NOBODY, Near, NearMisses, one_liner, program

aten = torch.ops.aten


# Normalization


def scaled(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    return x * s


def scaled_rows(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    return x * s.exp()


def in_three(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    a, b, c = torch.split(x, 3, -1)
    return a.sum() + b.sum() + c


def turned_twice(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x.transpose(1, 2).transpose(2, 3)


def reshaped_between(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], 4, 24).transpose(1, 2)


# Linears


def shifted(x: Tensor, y: Tensor, z: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return b + F.linear(x, w)


def residual(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> Tensor:
    return x + F.linear(y, w)


def read_twice(x: Tensor, y: Tensor, z: Tensor, w: Tensor, b: Tensor) -> Tensor:
    product = F.linear(x, w)
    return (product + b) * product


# Attention


def merged(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.bmm(x.flatten(0, 1), y.flatten(0, 1).transpose(1, 2))


def merged_tokens(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.bmm(x.flatten(1, 2), y.flatten(1, 2).transpose(1, 2))


def by_hand(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.softmax(x @ y.transpose(-1, -2) * 0.3, -1) @ z


def over_queries(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.softmax(x @ y.transpose(-1, -2), -2) @ z


def no_product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.softmax((x + y)[..., :4], -1) @ z


def faint(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    scores = (x @ y.transpose(-1, -2)).masked_fill(z[..., :4] > 0, -5.0)
    return scores.softmax(-1) @ z


def three_dimensional(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.softmax(x[:, 0] @ y[:, 0].transpose(1, 2), -1) @ z[:, 0]


def one_key_head(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.softmax(x @ y[:, :1].transpose(-1, -2), -1) @ z


def in_double(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.softmax((x @ y.transpose(-1, -2)).double(), -1).float() @ z


def shared(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return attend(x.repeat_interleave(2, 1), y.repeat_interleave(2, 1), z.repeat_interleave(2, 1))


def tiled(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return attend(x.repeat(1, 2, 1, 1), y.repeat(1, 2, 1, 1), z.repeat(1, 2, 1, 1))


def keys_only(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return attend(x, y[:, :1].expand(-1, 3, -1, -1), z)


# Norms


def quotient(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return y / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def sample(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x / torch.sqrt(x.var(-1, keepdim=True) + 1e-6)


def root_first(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x / (torch.sqrt(x.pow(2).mean(-1, keepdim=True)) + 1e-6)


def normal(x: Tensor, y: Tensor, z: Tensor, gain: Tensor) -> Tensor:
    return gain * standard(x, -1)


def across(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return standard(x, 1)


def of_another(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    d = x - y.mean(-1, keepdim=True)
    return d * torch.rsqrt(d.pow(2).mean(-1, keepdim=True) + 1e-6)


def standard(x: Tensor, dim: int) -> Tensor:
    """(x - mean) / deviation."""
    d = x - x.mean(dim, keepdim=True)
    return d * torch.rsqrt(d.pow(2).mean([dim], keepdim=True) + 1e-6)


# Activations


def swish(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.sigmoid(y) * y


def quick(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def loose(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 1.4))


def of_two(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(y / math.sqrt(2.0)))


SQUARE, ROW = values(8, 8), values(8)
ALONE = program(one_liner)

NEAR_DECOMPOSED: tuple[NearMisses, ...] = (
    NearMisses(
        "effc.passes.normalize.scalars:InlineScalars",
        InlineScalars,
        ALONE,
        (
            Near("other names", program(scaled, torch.tensor(0.3)), RENAMED),
            Near("a row", program(scaled, ROW), SAID_BY_NOBODY),
            Near("a computed scale", program(scaled_rows, torch.tensor(0.3)), SAID_BY_NOBODY),
        ),
    ),
    NearMisses(
        "effc.passes.normalize.splits:SlicesOfSplits",
        SlicesOfSplits,
        ALONE,
        (Near("three parts, one shorter", program(in_three), RENAMED),),
    ),
    NearMisses(
        "effc.passes.normalize.layouts:JoinLayouts",
        JoinLayouts,
        ALONE,
        (
            Near("other dimensions", program(turned_twice), RENAMED),
            Near("a shape in between", program(reshaped_between), SAID_BY_NOBODY),
        ),
    ),
    NearMisses(
        "effc.passes.raising.bias:RaiseBias",
        RaiseBias,
        ALONE,
        (
            Near("other names", program(shifted, SQUARE, ROW), RENAMED),
            Near("a residual", program(residual, SQUARE), SAID_BY_NOBODY),
            Near("two readers", program(read_twice, SQUARE, ROW), SAID_BY_NOBODY),
        ),
    ),
    NearMisses(
        "effc.passes.raising.merged_heads:RaiseMergedHeads",
        RaiseMergedHeads,
        ALONE,
        (
            Near("other names", program(merged), RENAMED),
            Near("merged tokens", program(merged_tokens), SAID_BY_NOBODY),
        ),
    ),
    NearMisses(
        "effc.passes.raising.attention_products:RaiseAttentionProducts",
        RaiseAttentionProducts,
        ALONE,
        (
            Near("other names", program(by_hand), RENAMED),
            Near("over queries", program(over_queries), "runs over dimension -2, not over"),
            Near("no product", program(no_product), "not a product of queries and keys"),
            Near("a faint mask", program(faint), "fills in -5.0, which does not hide a key"),
            Near("three dimensions", program(three_dimensional), "are not [B, H, T, D]"),
            Near("one key head", program(one_key_head), "are of different batches or heads"),
            Near("in float64", program(in_double), "attention in float64"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.grouped_queries:RaiseGroupedQueries",
        RaiseGroupedQueries,
        ALONE,
        (
            Near("other names", program(shared), RENAMED),
            Near("tiled heads", program(tiled), "the key heads are repeated as a whole"),
            Near("keys only", program(keys_only), SAID_BY_NOBODY),
        ),
    ),
    NearMisses(
        "effc.passes.raising.mean_squares:RaiseMeanSquares",
        RaiseMeanSquares,
        ALONE,
        (
            Near("other names", program(quotient), RENAMED),
            Near("Bessel's correction", program(sample), "one less than the count"),
            Near("the root first", program(root_first), SAID_BY_NOBODY),
        ),
    ),
    NearMisses(
        "effc.passes.raising.layer_norm:RaiseLayerNorm",
        RaiseLayerNorm,
        ALONE,
        (
            Near("other names", program(normal, ROW), RENAMED),
            Near("another dimension", program(across), "not over the last dimension"),
            Near("the mean of another", program(of_another), "x is not the same value"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.activations:RaiseActivations",
        RaiseActivations,
        ALONE,
        (
            Near("other names", program(swish), RENAMED),
            Near("quick GELU", program(quick), "quick GELU"),
            Near("a rough root of two", program(loose), "root is 1.4, not 1.41421"),
            Near("two inputs", program(of_two), "x is not the same value"),
        ),
    ),
)  # fmt: skip
