"""The analysis behind cache insertion: what mixes tokens is found, what does not is let through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import effc.ops  # noqa: F401
from effc.diagnostics import ModelError
from effc.frontend import capture
from effc.ir.program import InputSpec, Stage
from effc.ir.token_wise import obstacles

V, W = 11, 6
Body = Callable[[Tensor, Tensor, "Net"], Tensor]


class Net(torch.nn.Module):
    """Embedded tokens [B, T, W] through a function, with some weights at hand."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def weight(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(*shape, generator=generator).double())

        self.body = body
        self.table, self.places = weight(V, W), weight(64, W)
        self.square, self.kernel = weight(W, W), weight(W, W, 3)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.body(torch.nn.functional.embedding(ids, self.table), positions, self)


def captured(body: Body) -> Stage:
    """The stage of a body; sizes B and T are symbolic."""
    batch, tokens = torch.export.Dim("B", min=1), torch.export.Dim("T", min=1, max=64)
    positions = torch.arange(7).expand(3, 7).contiguous()
    example = {"ids": torch.zeros(3, 7, dtype=torch.long), "positions": positions}
    shapes = {name: {0: batch, 1: tokens} for name in example}
    exported = capture.export(Net(body), example, shapes, "test")
    exported.graph.eliminate_dead_code()
    inputs = tuple(InputSpec(name, torch.int64, ("B", "T")) for name in example)
    return capture.to_stage(exported, "forward", inputs, ("output",)).stage


def _group_pairs(x: Tensor) -> Tensor:
    """Tokens [B, T, W] with the same first coordinate's sign share their sum."""
    return torch.zeros_like(x).index_add(0, torch.zeros_like(x[:, 0, 0]).long(), x)


MIXING: dict[str, Body] = {
    "mean over T": lambda x, p, n: x - x.mean(1, keepdim=True),
    "sum over everything": lambda x, p, n: x / x.sum(),
    "variance over T and W": lambda x, p, n: x * x.var((1, 2), keepdim=True),
    "largest over T": lambda x, p, n: x + x.amax(1, keepdim=True),
    "norm of everything": lambda x, p, n: x / x.norm(),
    "cumsum": lambda x, p, n: x.cumsum(1),
    "cumprod": lambda x, p, n: x.cumprod(-2),
    "softmax over T": lambda x, p, n: x.softmax(1),
    "convolution over T": lambda x, p, n: torch.nn.functional.conv1d(
        x.transpose(1, 2), n.kernel, padding=1
    ).transpose(1, 2),
    "layer norm over T": lambda x, p, n: torch.nn.functional.layer_norm(
        x.transpose(0, 1).transpose(1, 2), x.shape[:1]
    ).permute(2, 0, 1),
    "T x T product": lambda x, p, n: (x @ x.transpose(1, 2)).tanh() @ x,
    "T x T by broadcasting": lambda x, p, n: (x[:, :, None] * x[:, None]).sum(2),
    "second moments": lambda x, p, n: x @ (x.transpose(1, 2) @ x),
    "linear over T": lambda x, p, n: torch.nn.functional.linear(
        n.square, x[0]
    ).transpose(0, 1)[None] + x,
    "reversed": lambda x, p, n: x.flip(1),
    "rolled": lambda x, p, n: x.roll(1, 1),
    "rolled flat": lambda x, p, n: x.roll(1),
    "sorted": lambda x, p, n: x.sort(1).values,
    "sorted by another": lambda x, p, n: x.gather(1, x.argsort(1)),
    "shifted": lambda x, p, n: torch.nn.functional.pad(x, (0, 0, 1, 0)).narrow(1, 0, x.shape[1]),
    "last token": lambda x, p, n: x + x[:, -1:],
    "first token": lambda x, p, n: x + x.select(1, 0)[:, None],
    "first token by gather": lambda x, p, n: x + x.gather(1, torch.zeros_like(p)[:, :1, None]),
    "scrambled by transposing": lambda x, p, n: x.transpose(1, 2).flatten().view(x.shape),
    "scrambled by flattening": lambda x, p, n: x.transpose(0, 1).reshape(-1, W).reshape(x.shape),
    "scrambled heads": lambda x, p, n: x.view(*x.shape[:2], 2, 3).transpose(1, 2).flatten()
    .view(x.shape),
    "aligned with the wrong flattening": lambda x, p, n: (
        x.transpose(0, 1).reshape(-1, W) + x.reshape(-1, W)
    ).view(x.shape),
    "tokens picked by tokens": lambda x, p, n: x[0][p % 1],
    "table made of tokens": lambda x, p, n: torch.nn.functional.embedding(p * 0, x[0]),
    "tokens replaced by the first": lambda x, p, n: torch.index_put(x, (p > 2,), x[0, 0]),
    "a token overwritten": lambda x, p, n: x.select_scatter(x.select(1, 0), 1, 1),
    "others' coordinates overwritten": lambda x, p, n: x.slice_scatter(
        x.transpose(0, 1).transpose(0, 1).flip(1)[..., :2], 2, 0, 2
    ),
    "positions by counting": lambda x, p, n: x + torch.arange(x.shape[1])[:, None],
    "positions by cutting the table": lambda x, p, n: x + n.places[: x.shape[1]],
    "positions by cumsum": lambda x, p, n: x + torch.ones_like(p).cumsum(1)[..., None],
    "divided by T": lambda x, p, n: x / x.shape[1],
    "scaled by sqrt T": lambda x, p, n: x * x.shape[1] ** 0.5,
    "filled with T": lambda x, p, n: x + torch.full((W,), x.shape[1]),
    "causal by triangle": lambda x, p, n: torch.ones(x.shape[1], x.shape[1]).double().tril() @ x,
    "mean over the batch": lambda x, p, n: x - x.mean(0, keepdim=True),
    "first sequence": lambda x, p, n: x + x[:1],
    "divided by B": lambda x, p, n: x / x.shape[0],
    "batch norm": lambda x, p, n: x - x.flatten(0, 1).mean(0),
    "added into one row": lambda x, p, n: _group_pairs(x),
    "attention of torch": lambda x, p, n: torch.nn.functional.scaled_dot_product_attention(
        x, x, x, is_causal=True
    ),
    "attention along the batch": lambda x, p, n: torch.ops.effc.attention(
        x.transpose(0, 1)[:, None], x.transpose(0, 1)[:, None], x.transpose(0, 1)[:, None],
        None, True, None, None, 1.0, None, None,
    )[:, 0].transpose(0, 1),
    "attention over a flat batch": lambda x, p, n: torch.ops.effc.attention(
        x.reshape(1, 1, -1, W), x.reshape(1, 1, -1, W), x.reshape(1, 1, -1, W),
        None, True, None, None, 1.0, None, None,
    ).reshape(x.shape),
    "rotation along T": lambda x, p, n: torch.ops.effc.rope(
        torch.cat([x, x], 1).transpose(1, 2)[:, None], *([torch.cat([p, p], 1)[:, None, None]] * 2),
        "half",
    )[:, 0].transpose(1, 2)[:, : x.shape[1]],
}  # fmt: skip

APART: dict[str, Body] = {
    "nothing": lambda x, p, n: x * 2,
    "linear": lambda x, p, n: x @ n.square,
    "norm": lambda x, p, n: torch.nn.functional.layer_norm(x, (W,)),
    "normalized by hand": lambda x, p, n: x * x.pow(2).mean(-1, keepdim=True).rsqrt(),
    "softmax over W": lambda x, p, n: x.softmax(-1),
    "top coordinates": lambda x, p, n: torch.zeros_like(x).scatter(
        -1, *reversed(x.topk(2, -1))
    ),
    "picked coordinates": lambda x, p, n: x.gather(-1, x.argsort(-1)),
    "heads": lambda x, p, n: x.view(*x.shape[:2], 2, 3).transpose(1, 2).tanh()
    .transpose(1, 2).reshape(x.shape),
    "flat": lambda x, p, n: x.reshape(-1, W).tanh().view(x.shape),
    "flat with choices": lambda x, p, n: x.unsqueeze(2).expand(-1, -1, 2, -1).reshape(-1, W)
    .mul(2).reshape(*x.shape[:2], 2, W).sum(2),
    "positions": lambda x, p, n: x + torch.nn.functional.embedding(p, n.places),
    "positions by index": lambda x, p, n: x + n.places[p],
    "angles": lambda x, p, n: x * (p[..., None].float() @ torch.ones(1, W)).cos(),
    "halves": lambda x, p, n: torch.cat([x[..., 3:], -x[..., :3]], -1),
    "coordinates overwritten": lambda x, p, n: x.slice_scatter(2 * x[..., :2], 2, 0, 2),
    "a coordinate overwritten": lambda x, p, n: x.select_scatter(2 * x.select(2, 0), 2, 1),
    "masked": lambda x, p, n: x + torch.index_put(p, (p > 2,), torch.tensor(0)).unsqueeze(-1),
    "complex": lambda x, p, n: torch.view_as_real(
        torch.polar(torch.ones_like(x), x) * torch.view_as_complex(
            x.unsqueeze(-1).expand(-1, -1, -1, 2).contiguous()
        )
    ).flatten(2),
    "copies": lambda x, p, n: x.repeat(1, 1, 2)[..., :W],
    "attention": lambda x, p, n: torch.ops.effc.attention(
        x.unsqueeze(1), x.unsqueeze(1), x.unsqueeze(1), None, True, None, None, 1.0, None, None
    ).squeeze(1),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_is_refused(name: str) -> None:
    assert next(obstacles(captured(MIXING[name])), None) is not None


@pytest.mark.parametrize("name", APART)
def test_what_keeps_apart_is_accepted(name: str) -> None:
    found = next(obstacles(captured(APART[name])), None)
    assert found is None, f"{found.node.format_node()} {found.reason}"


# Small steps over tensors of any shape; `d` chooses a dimension.
STEPS: dict[str, Callable[[Tensor, int, Tensor], Tensor]] = {
    "swap": lambda x, d, o: x.transpose(d, (d + 1) % x.dim()),
    "merge": lambda x, d, o: x.flatten(min(d, x.dim() - 2), min(d, x.dim() - 2) + 1),
    "as at first": lambda x, d, o: x.reshape(o.shape),
    "flat": lambda x, d, o: x.reshape(-1, W),
    "heads": lambda x, d, o: x.reshape(*x.shape[:-1], 2, -1),
    "softmax": lambda x, d, o: x.softmax(d),
    "cumsum": lambda x, d, o: x.cumsum(d),
    "center": lambda x, d, o: x - x.mean(d, keepdim=True),
    "sum": lambda x, d, o: x.sum(d),
    "copy": lambda x, d, o: x.unsqueeze(d).expand(*x.shape[:d], 2, *x.shape[d:]),
    "double": lambda x, d, o: torch.cat([x, 2 * x], d),
    "flip": lambda x, d, o: x.flip(d),
    "cut": lambda x, d, o: x.narrow(d, 0, 1) + x,
    "product": lambda x, d, o: (x @ x.transpose(-1, -2)).tanh(),
    "add": lambda x, d, o: x + o,
    "stack": lambda x, d, o: torch.stack([x, x.cos()], d),
    "square": lambda x, d, o: x * x.sin(),
    "rank": lambda x, d, o: x.argsort(d).to(x.dtype) + x,
    "pick": lambda x, d, o: x.gather(d, (x > 0).long()),
}  # fmt: skip


def _composed(steps: list[tuple[str, int]]) -> Body:
    def body(x: Tensor, positions: Tensor, net: Net) -> Tensor:
        first = x
        for name, dim in steps:
            x = STEPS[name](x, dim % x.dim(), first)
        return x.reshape(*first.shape[:2], -1)

    return body


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 3)), min_size=1, max_size=4
    )
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_accepted_compositions_keep_tokens_apart(steps: list[tuple[str, int]]) -> None:
    """Neither another token, nor another row, nor their number reaches a token's output."""
    body = _composed(steps)
    net, positions = Net(body), torch.arange(5).expand(3, 5)
    ids = torch.randint(0, V, (3, 5), generator=torch.Generator().manual_seed(0))
    try:
        before = net(ids, positions)
        stage = captured(body)
    except (RuntimeError, IndexError, ModelError):
        return  # shapes that do not fit
    if next(obstacles(stage), None) is not None:
        return
    changed = ids.clone()
    changed[1, 2] = (changed[1, 2] + 1) % V
    after = net(changed, positions)
    after[1, 2] = before[1, 2]
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    fewer = net(ids[1:, :3], positions[1:, :3])
    torch.testing.assert_close(fewer, before[1:, :3], rtol=1e-12, atol=1e-12)
