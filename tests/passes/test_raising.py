"""Raised programs compute what the decomposed ones did, for every spelling of every part."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product as product_of
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effc.ir.program import Program
from effc.kernels.cases import excess
from tests.passes.case import values
from tests.programs import canonical, capture, run

B, H, T, D = 2, 4, 5, 8
Function = Callable[..., Tensor]


class Calls(nn.Module):
    """A module of functions of four inputs and a parameter."""

    def __init__(self, functions: Sequence[Function], weight: Tensor) -> None:
        super().__init__()
        self.functions = functions
        self.weight = nn.Parameter(weight)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(q, k, v, m, self.weight) for function in self.functions)


def raised(functions: Sequence[Function], *inputs: Tensor, weight: Tensor | None = None) -> Program:
    """The canonical program of functions, after comparing its numbers with the captured one.

    Both are measured against the functions in float64: raising may lose what low precision loses
    anyway.
    """
    module = Calls(functions, values(D) if weight is None else weight).eval()
    named = dict(zip("qkvm", inputs, strict=True))
    plain, new = (
        run(made(module, *inputs), "forward", named).values() for made in (capture, canonical)
    )
    wide = [x.double() if x.is_floating_point() else x for x in (*inputs, module.weight.detach())]
    for before, after, function in zip(plain, new, functions, strict=True):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert excess(after, function(*wide).numpy(), before) <= 0
    return canonical(module, *inputs)


def calls(program: Program, name: str) -> list[Any]:
    """The calls of an operator of effc or aten."""
    return [node for _, node in program.nodes() if str(node.target).startswith(f"{name}.")]


# Attention: every part on its own, and all of them together


def grouped(k: Tensor, how: str) -> Tensor:
    """[B, H / 2, T, D] -> [B, H, T, D], each head beside its copy."""
    b, h, t, d = k.shape
    if how == "interleave":
        return torch.repeat_interleave(k, 2, dim=1)
    if how == "expand":
        return k[:, :, None].expand(b, h, 2, t, d).reshape(b, 2 * h, t, d)
    if how == "cat":
        return torch.cat([k.unsqueeze(2), k.unsqueeze(2)], 2).reshape(b, 2 * h, t, d)
    late = k.transpose(1, 2).unsqueeze(3).expand(b, t, h, 2, d).reshape(b, t, 2 * h, d)
    return late.permute(0, 2, 1, 3)


def product(q: Tensor, k: Tensor, scale: float, how: str) -> Tensor:
    """Scaled scores [B, H, T, T]."""
    b, h, t, d = q.shape
    if how == "queries":
        return (q * scale) @ k.transpose(-1, -2)
    if how == "both":
        return (q * math.sqrt(scale)) @ (k.permute(0, 1, 3, 2) * math.sqrt(scale))
    if how == "merged":
        turned = k.reshape(b * h, t, d).transpose(1, 2)
        return torch.bmm(q.reshape(b * h, t, d) * scale, turned).view(b, h, t, t)
    if how == "scores":
        return (q @ k.transpose(2, 3)) / (1 / scale)
    squeezed = k.reshape(-1, t, d).permute(0, 2, 1).reshape(b, h, d, t)
    return (q * math.sqrt(scale)) @ (squeezed * math.sqrt(scale))


def masked(scores: Tensor, m: Tensor, how: str) -> Tensor:
    """Scores of hidden keys are out of reach; m [B, 1, T, T] is positive where they are seen."""
    low = torch.finfo(scores.dtype).min
    if how == "where":
        return torch.where(m > 0, scores, -math.inf)
    if how == "fill":
        return scores.masked_fill(m <= 0, torch.finfo(torch.float32).min)
    if how == "filled":
        return torch.where(m <= 0, torch.full_like(scores, low), scores)
    if how == "add":
        return scores + torch.where(m > 0, 0.0, -1e9)
    if how == "added first":
        return (m <= 0).to(scores.dtype) * -1e9 + scores
    if how == "twice":
        return (scores + m).masked_fill(m <= 0, -math.inf)
    return scores


def weights(scores: Tensor, how: str) -> Tensor:
    """The softmax, with what people put around it."""
    if how == "guarded":
        w = scores.softmax(-1)
        return torch.where(w.isnan(), 0.0, w)
    if how == "zeroed":
        w = scores.softmax(-1)
        return torch.where(torch.isnan(w), torch.zeros_like(w), w)
    if how == "shifted":
        return torch.softmax(scores - scores.amax(-1, keepdim=True), -1)
    if how == "dropped":
        return F.dropout(scores.softmax(-1), 0.1, training=False)
    return F.softmax(scores, dim=-1, dtype=scores.dtype)


INPUTS = (
    values(B, H, T, D),
    values(B, H // 2, T, D, seed=1),
    values(B, H // 2, T, D, seed=2),
    values(B, 1, T, T, seed=3).tril() + 3.0 * torch.eye(T),
)


def attention(
    copies: str, scaling: str, masking: str, softmax: str, cap: float | None = None
) -> Function:
    """Attention of one spelling."""

    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, _: Tensor) -> Tensor:
        scores = product(q, grouped(k, copies), 0.25, scaling)
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        return weights(masked(scores, m, masking), softmax) @ grouped(v, copies)

    return function


COPIES = ("interleave", "expand", "cat", "late")
SCALINGS = ("queries", "both", "merged", "scores", "squeezed")
MASKINGS = ("none", "where", "fill", "filled", "add", "added first", "twice")
SOFTMAXES = ("plain", "guarded", "zeroed", "shifted", "dropped")
# A step that has no factor in common with any of the counts visits all values of each.
SPELLINGS = list(product_of(COPIES, SCALINGS, MASKINGS, SOFTMAXES, (None, 5.0)))[::61]


def test_attention_of_every_spelling() -> None:
    assert [{*column} for column in zip(*SPELLINGS, strict=True)] == [
        {*COPIES}, {*SCALINGS}, {*MASKINGS}, {*SOFTMAXES}, {None, 5.0},
    ]  # fmt: skip
    program = raised([attention(*spelling) for spelling in SPELLINGS], *INPUTS)
    results = program.stages["forward"].output_node.args[0]
    for (*_, masking, _, cap), node in zip(SPELLINGS, results, strict=True):
        q, k, v, mask, causal, window, chunk, scale, softcap, sinks = node.args
        assert [x.meta["val"].shape[1] for x in (q, k, v)] == [H, H // 2, H // 2]
        assert (mask is None) == (masking == "none")
        assert mask is None or mask.meta["val"].dim() == 4
        assert math.isclose(scale, 0.25, rel_tol=1e-12)
        assert (causal, window, chunk, softcap, sinks) == (False, None, None, cap, None)


def test_a_mask_inside_of_the_scaling_is_scaled() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, _: Tensor) -> Tensor:
        scores = (q @ grouped(k, "expand").transpose(2, 3) + m) / 2.0
        return scores.softmax(-1) @ grouped(v, "expand")

    (node,) = calls(raised([function], *INPUTS), "effc.attention")
    assert node.args[7] == 0.5


def test_one_row_per_head_joins_merged_scores() -> None:
    """As in BLOOM: slopes times distances, [B * H, 1, T]."""

    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, weight: Tensor) -> Tensor:
        b, h, t, d = q.shape
        keys, values_ = (grouped(x, "late").reshape(b * h, t, d) for x in (k, v))
        rows = (weight[None, :h, None] * m.sum((1, 2))[:, None, :]).reshape(b * h, 1, t)
        scores = torch.bmm(q.reshape(b * h, t, d), keys.transpose(1, 2)) * 0.5 + rows
        return torch.bmm(scores.view(b, h, t, t).softmax(-1).view(b * h, t, t), values_)

    (node,) = calls(raised([function], *INPUTS), "effc.attention")
    assert list(node.args[3].meta["val"].shape[1:]) == [H, 1, T]


def test_filling_with_infinity_is_a_boolean_mask() -> None:
    functions = [attention("expand", "scores", "where", "plain")]
    (node,) = calls(raised(functions, *INPUTS), "effc.attention")
    assert node.args[3].meta["val"].dtype == torch.bool


def test_a_query_that_sees_nothing_sees_all_keys_alike_if_the_fill_is_finite() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, _: Tensor) -> Tensor:
        scores = (q[:, :2] @ k.transpose(2, 3)).masked_fill(m < 99, torch.finfo(torch.float32).min)
        return scores.softmax(-1) @ v

    blind = (*INPUTS[:3], torch.zeros(B, 1, T, T))
    assert calls(raised([function], *blind), "effc.attention")


@pytest.mark.parametrize("shift", (False, True))
def test_sinks_join_the_softmax(shift: bool) -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, weight: Tensor) -> Tensor:
        b, h, t, _ = q.shape
        scores = q @ k.repeat_interleave(2, 1).transpose(2, 3) * 0.25
        sinks = weight.reshape(1, -1, 1, 1).expand(b, h, t, 1)
        joined = torch.cat([scores, sinks], -1)
        joined = joined - joined.max(-1, keepdim=True).values if shift else joined
        return joined.softmax(-1)[..., :-1] @ v.repeat_interleave(2, 1)

    (node,) = calls(raised([function], *INPUTS, weight=values(H)), "effc.attention")
    assert node.args[9].meta["val"].shape == (H,)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_attention_in_sixteen_bits_with_a_wide_softmax(dtype: torch.dtype) -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, _: Tensor) -> Tensor:
        scores = q[:, :2] @ k.transpose(2, 3) * 0.25 + m
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        return torch.softmax(scores, -1, dtype=wide).to(q.dtype) @ v

    program = raised([function], *(x.to(dtype) for x in INPUTS), weight=values(D).to(dtype))
    (node,) = calls(program, "effc.attention")
    assert node.meta["val"].dtype == dtype


# Norms


SQUARES: dict[str, Callable[[Tensor], Tensor]] = {
    "power": lambda x: x**2,
    "product": lambda x: x * x,
    "square": torch.square,
}
ROOTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rsqrt": lambda x, s: x * torch.rsqrt(s),
    "quotient": lambda x, s: x / torch.sqrt(s),
    "reciprocal": lambda x, s: torch.sqrt(s).reciprocal() * x,
    "one over": lambda x, s: x * (1 / torch.sqrt(s)),
    "power": lambda x, s: x * s**-0.5,
}


def norm(square: str, root: str, left: bool, centred: bool) -> Function:
    """A norm of one spelling; a layer norm if it is centred."""

    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, weight: Tensor) -> Tensor:
        d = q - q.mean(-1, keepdim=True) if centred else q
        n = ROOTS[root](d, SQUARES[square](d).mean(-1, keepdim=True) + 1e-5)
        scaled = weight * n if left else n * weight
        return scaled + weight if centred else scaled

    return function


@pytest.mark.parametrize(("centred", "name"), ((False, "effc.rms_norm"), (True, "aten.layer_norm")))
def test_norms_of_every_spelling(centred: bool, name: str) -> None:
    spellings = list(product_of(SQUARES, ROOTS, (False, True)))
    program = raised([norm(*spelling, centred) for spelling in spellings], *INPUTS)
    assert len(calls(program, name)) == len(spellings)
    assert not calls(program, "aten.mul")


def test_a_norm_whose_epsilon_the_exporter_dropped() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, weight: Tensor) -> Tensor:
        return weight * (q * (1 / torch.sqrt(q.pow(2).mean(-1, keepdim=True))))

    (node,) = calls(raised([function], *INPUTS), "effc.rms_norm")
    assert node.args[2] == 0.0


def test_variance_of_the_library() -> None:
    def function(q: Tensor, k: Tensor, v: Tensor, m: Tensor, weight: Tensor) -> Tensor:
        variance = q.var(-1, unbiased=False, keepdim=True)
        return (q - q.mean(-1, keepdim=True)) / torch.sqrt(variance + 1e-5) * weight

    assert calls(raised([function], *INPUTS), "aten.layer_norm")


# Rotations

ANGLES = (values(B, H, T, D), values(B, 1, T, D, seed=1), values(B, 1, T, D, seed=2), INPUTS[3])


def half(x: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """Both halves of the last dimension."""
    n = x.shape[-1] // 2
    if how == "slices":
        return x[..., :n], x[..., n:]
    first, second = x.chunk(2, dim=-1) if how == "chunk" else x.split([n, n], dim=-1)
    return first, second


def rotation(cut: str, width: int, pairs: bool, components: bool) -> Function:
    """A rotation of one spelling, of the first `width` coordinates."""

    def function(q: Tensor, cos: Tensor, sin: Tensor, m: Tensor, _: Tensor) -> Tensor:
        x, rest, n = q[..., :width], q[..., width:], width // 2
        cos, sin = cos[..., :width], sin[..., :width]
        a, b = (x[..., ::2], x[..., 1::2]) if pairs else half(x, cut)
        if components:
            c, s = cos[..., :n], sin[..., :n]
            both = (a * c - b * s, b * c + a * s)
        else:
            both = (-b, a)
        joined = torch.stack(both, -1).flatten(-2) if pairs else torch.cat(both, -1)
        turned = joined if components else x * cos + joined * sin
        return torch.cat([turned, rest], -1)

    return function


def test_rotations_of_every_spelling() -> None:
    cuts, both = ("slices", "chunk", "split"), (False, True)
    spellings = list(product_of(cuts, (D, D // 2), both, both))
    program = raised([rotation(*spelling) for spelling in spellings], *ANGLES)
    styles = ["interleaved" if pairs else "half" for _, _, pairs, _ in spellings]
    assert [node.args[3] for node in calls(program, "effc.rope")] == styles


# Activations and linears


ACTIVATIONS: tuple[tuple[Callable[[Tensor], Tensor], str], ...] = (
    (lambda x: x * torch.sigmoid(x), "silu"),
    (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), "gelu"),
    (lambda x: x * ((1 + torch.erf(x * math.sqrt(0.5))) / 2), "gelu"),
    (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "gelu_tanh",
    ),
    (
        lambda x: x / 2 * (torch.tanh(x * (0.7978845608 + 0.0356774081 * (x * x))) + 1.0),
        "gelu_tanh",
    ),
)


def gate(form: Callable[[Tensor], Tensor]) -> Function:
    """form(k) * v."""
    return lambda q, k, v, m, weight: form(k) * v


def test_gates_of_formulas() -> None:
    program = raised([gate(form) for form, _ in ACTIVATIONS], *INPUTS)
    found = [node.args[2] for node in calls(program, "effc.gated_activation")]
    assert found == [name for _, name in ACTIVATIONS]


@pytest.mark.parametrize("rank", (2, 3, 4))
def test_products_with_a_bias_are_linears(rank: int) -> None:
    def linear(q: Tensor, k: Tensor, v: Tensor, m: Tensor, weight: Tensor) -> Tensor:
        x = q.flatten(0, 4 - rank) if rank < 4 else q
        return torch.relu(x) @ weight + weight[0]

    program = raised([linear], *INPUTS, weight=values(D, D))
    assert [len(calls(program, f"aten.{name}")) for name in ("linear", "matmul")] == [1, 0]
