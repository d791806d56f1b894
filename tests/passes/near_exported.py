"""What the passes for exported graphs almost rewrite."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effc.ir.program import Program
from effc.passes.raising.layers import NumberLayers
from effc.passes.raising.masks import RecognizeMasks
from effc.passes.raising.positions import FindPositions
from effc.passes.raising.table import RaiseTable
from tests.passes.exported import Counting, Turned, prepared
from tests.passes.near import RENAMED, Near, NearMisses
from tests.programs import capture


def biased(query: Tensor, key: Tensor) -> Tensor:
    """Far keys count less: no mask."""
    return -(query - key).abs().float()


def prefixed(query: Tensor, key: Tensor) -> Tensor:
    """The first tokens see one another."""
    return (key <= query) | (key < 2)


class Renamed(Counting):
    """The same under another name."""


class Crossed(nn.Module):
    """Positions meet one another, not the tokens of their own sequence."""

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        row = torch.arange(ids.shape[1])[None]
        return F.one_hot(ids, 6).float() + (row - row.transpose(0, 1)).sum(1)[None, :, None]


class Plain(nn.Module):
    """No attention, nothing counted, no table."""

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        return F.one_hot(ids, 6).float() * positions[:, :, None]


class RenamedTable(Turned):
    """The same under another name."""


class Computed(nn.Module):
    """The table is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Parameter(torch.randn(4, 6))

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, (self.head * ids.sum()).permute(1, 0))


def _of_ids(module: type[nn.Module]) -> Program:
    return capture(module(), torch.tensor([1, 5, 0]))


PLAIN = prepared(Plain)
NEAR_EXPORTED = (
    NearMisses(
        "effc.passes.raising.masks:RecognizeMasks",
        RecognizeMasks,
        PLAIN,
        (
            Near("other names", prepared(Renamed), RENAMED),
            Near("a bias", prepared(lambda: Counting(biased)), "it is a bias"),
            Near("a prefix", prepared(lambda: Counting(prefixed)), "neither full, causal"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.positions:FindPositions",
        FindPositions,
        PLAIN,
        (
            Near("other names", prepared(Renamed, RecognizeMasks()), RENAMED),
            Near("one row for all", prepared(Crossed), "one row of positions"),
        ),
    ),
    NearMisses(
        "effc.passes.raising.layers:NumberLayers",
        NumberLayers,
        PLAIN,
        (Near("other names", prepared(Renamed, RecognizeMasks()), RENAMED),),
    ),
    NearMisses(
        "effc.passes.raising.table:RaiseTable",
        RaiseTable,
        PLAIN,
        (
            Near("other names", lambda: _of_ids(RenamedTable), RENAMED),
            Near("a computed table", lambda: _of_ids(Computed), "computed, not a weight"),
        ),
    ),
)
