"""The cache: refusals, the meaning of `decode`, logits for the rows asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from effc.diagnostics import PassError
from effc.ir.journal import Journal
from effc.ir.pattern import op_name
from effc.ir.program import Program, RetentionGroup, ScheduleEntry
from effc.passes.caching.insert_cache import InsertCache
from tests.conftest import Golden
from tests.programs import (
    Decoder,
    canonical,
    capture,
    decode_inputs,
    decoder,
    example_ids,
    run,
    run_passes,
)


class Broken(Decoder):
    """A decoder with one thing that no cache can continue."""

    def __init__(self, break_: Callable[..., Tensor]) -> None:
        super().__init__()
        self.break_ = break_

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(positions)
        return self.head(self.break_(self.layers[0](x)))


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (4, 4)).transpose(1, 2)


def attend(x: Tensor, keys: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    q, k = heads(x), heads(keys)
    y = torch.ops.effc.attention(q, k, k, mask, causal, None, None, 0.5, None, None)
    return y.transpose(1, 2).flatten(2)


def _checkered(tokens: int) -> Tensor:
    """Every second key, [T, T]: neither causal nor a window."""
    places = torch.arange(tokens)
    return (places[:, None] + places) % 2 == 0


BROKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "bidirectional": lambda x: attend(x, x, None, causal=False),
    "dense-mask": lambda x: attend(x, x, _checkered(x.shape[1]), causal=True),
    "other-keys": lambda x: attend(x, torch.cat([x, x], 1), None, causal=True),
    "sum-over-tokens": lambda x: x.cumsum(1),
    "shift": lambda x: torch.roll(x, 1, 1),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "counts-tokens": lambda x: x / x.shape[1],
}


@pytest.mark.parametrize(
    ("sizes", "words"), [((3, 7), "batch 3 and length 7"), ((3, None), "batch 3 ")]
)
def test_fixed_sizes_are_refused(sizes: tuple[int, int | None], words: str) -> None:
    program = canonical(decoder(), *example_ids())
    ids = program.stages["forward"].placeholder("ids")
    fake = ids.meta["val"]
    shape = [fixed or size for fixed, size in zip(sizes, fake.shape, strict=True)]
    with fake.fake_mode:
        ids.meta["val"] = torch.empty(shape, dtype=torch.int64)
    with pytest.raises(PassError, match=words) as caught:
        InsertCache().requires(program)
    assert caught.value.code == "E0405"


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_continued_is_refused(name: str, golden: Golden) -> None:
    program = canonical(Broken(BROKEN[name]).eval(), *example_ids())
    with pytest.raises(PassError) as caught:
        InsertCache()(program, Journal())
    assert caught.value.code == "E0405"
    golden.check(str(caught.value))
    assert "forward" in program.stages


def cached(window: int | None = None) -> Program:
    program = capture(decoder(window), *example_ids())
    run_passes(program, InsertCache(page_size=4))
    return program


def test_what_the_program_says_of_its_cache() -> None:
    program = cached(window=3)
    assert list(program.stages) == ["decode"]
    assert (program.loop, program.page_size) == ("autoregressive", 4)
    assert [
        (s.index, s.name, s.layer, s.kv_heads, s.key_width, s.group) for s in program.cache_sites
    ] == [
        (0, "layers.0", 0, 2, 4, "full"),
        (1, "layers.1", 1, 2, 4, "window3"),
    ]
    assert program.groups == (
        RetentionGroup("full"),
        RetentionGroup("window3", window=3, indexed=True),
    )
    assert program.schedule == (ScheduleEntry("each_step", "evict_window", {"group": "window3"}),)
    roles = {spec.name: spec.role for spec in program.stages["decode"].inputs}
    assert [name for name, role in roles.items() if role == "argument"] == [
        "ids",
        "positions",
        "new_len",
        "logit_rows",
        "tree_mask",
    ]


@pytest.mark.parametrize("cuts", ((7,), (1,) * 7, (3, 1, 3), (6, 1)))
def test_parts_give_the_logits_of_the_whole(cuts: tuple[int, ...]) -> None:
    module, program = decoder(), cached()
    ids, positions = example_ids(1, 7)
    expected = module(ids, positions)
    inputs, got, done = decode_inputs(program, ids), [], 0
    for cut in cuts:
        part = slice(done, done + cut)
        inputs |= {
            "ids": ids[:, part],
            "positions": positions[:, part],
            "new_len": torch.tensor([cut]),
            "logit_rows": torch.arange(cut)[None],
            "slots_full": torch.arange(7)[None, None, part],
        }
        results = run(program, "decode", inputs)
        got.append(results.pop("logits"))
        inputs |= results
        done += cut
    assert inputs["lengths"].tolist() == [7]
    torch.testing.assert_close(torch.cat(got, 1), expected, rtol=1e-5, atol=1e-5)


def test_ragged_rows_and_chosen_logits() -> None:
    """Two sequences of 5 and 3 tokens in one call; logits after the last of each."""
    module, program = decoder(), cached()
    ids, positions = example_ids(2, 5)
    inputs = decode_inputs(program, ids[:1]) | {
        "ids": ids,
        "positions": positions,
        "new_len": torch.tensor([5, 3]),
        "logit_rows": torch.tensor([[4], [2]]),
        "lengths": torch.tensor([0, 0]),
        "table_full": torch.tensor([[[0, 1]], [[2, -1]]], dtype=torch.int32),
        "slots_full": torch.tensor([[[0, 1, 2, 3, 4]], [[8, 9, 10, -1, -1]]]),
        **{name: torch.zeros(3, 2, 4, 4) for name in ("k0", "v0", "k1", "v1")},
    }
    results = run(program, "decode", inputs)
    assert results["lengths"].tolist() == [5, 3]
    for row, length in enumerate((5, 3)):
        alone = module(ids[row : row + 1, :length], positions[:1, :length])[:, -1:]
        torch.testing.assert_close(results["logits"][row : row + 1], alone, rtol=1e-5, atol=1e-5)


class Capped(Decoder):
    """Logits that go on through operators of one token each."""

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        return 5 * torch.tanh(super().forward(ids, positions) / 5)


class Reused(Decoder):
    """Logits that are used twice: rows are chosen behind them."""

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        logits = super().forward(ids, positions)
        return logits * torch.sigmoid(logits)


@pytest.mark.parametrize(
    ("make", "before_head"), ((Decoder, True), (Capped, True), (Reused, False))
)
def test_rows_are_chosen_before_the_head_where_that_is_possible(
    make: type[nn.Module], before_head: bool
) -> None:
    torch.manual_seed(4)
    module = make().eval()
    program = capture(module, *example_ids())
    run_passes(program, InsertCache(page_size=4))
    ops = [op_name(node) for _, node in program.nodes() if op_name(node)]
    last_linear = max(i for i, op in enumerate(ops) if op == "aten.linear.default")
    assert (ops.index("effc.select_rows.default") < last_linear) == before_head
    ids, positions = example_ids(1, 7)
    got = run(
        program, "decode", decode_inputs(program, ids) | {"logit_rows": torch.tensor([[6, 2]])}
    )
    expected = module(ids, positions)[:, [6, 2]]
    torch.testing.assert_close(got["logits"], expected, rtol=1e-5, atol=1e-5)
