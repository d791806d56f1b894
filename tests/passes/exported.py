"""Cases of the passes for what exporters leave behind: masks, positions, layers, turned tables."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effc.ir.passbase import Pass
from effc.ir.program import Program
from effc.passes.raising.attention import RaiseAttention
from effc.passes.raising.layers import NumberLayers
from effc.passes.raising.masks import RecognizeMasks
from effc.passes.raising.positions import FindPositions
from effc.passes.raising.table import RaiseTable
from tests.passes.case import PassCase, named, of_module, values
from tests.programs import capture, run_passes

aten = torch.ops.aten
HEADS, WIDTH = 2, 4
Mask = Callable[[Tensor, Tensor], Tensor | None]
IDS = torch.tensor([[1, 2, 0, 3, 4], [4, 3, 2, 1, 0]])
POSITIONS = torch.arange(5).expand(2, 5).contiguous()


def causal(query: Tensor, key: Tensor) -> Tensor:
    """A query sees itself and what came before."""
    return key <= query


class Counting(nn.Module):
    """A decoder that counts its tokens and masks its attentions by itself."""

    def __init__(self, mask: Mask = causal, counted: bool = True, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        wide = HEADS * WIDTH
        self.mask, self.counted = mask, counted
        self.tokens, self.places = nn.Embedding(6, wide), nn.Embedding(32, wide)
        self.blocks = nn.ModuleList(nn.Linear(wide, 3 * wide) for _ in range(layers))
        self.outs = nn.ModuleList(nn.Linear(wide, wide) for _ in range(layers))
        self.head = nn.Linear(wide, 6)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        B, T = ids.shape
        index = torch.arange(T)
        mask = self.mask(index[:, None], index[None, :])
        mask = None if mask is None else mask[None, None]
        x = self.tokens(ids) + self.places(index[None] if self.counted else positions)
        for block, out in zip(self.blocks, self.outs, strict=True):
            parts = block(x).chunk(3, -1)
            q, k, v = (p.view(B, T, HEADS, WIDTH).transpose(1, 2) for p in parts)
            y = F.scaled_dot_product_attention(q, k, v, mask)
            x = x + out(y.transpose(1, 2).reshape(B, T, HEADS * WIDTH))
        return self.head(x)


def prepared(module: Callable[[], nn.Module], *passes: Pass) -> Callable[[], Program]:
    """A captured decoder after some passes, without the names of its modules."""

    def build() -> Program:
        program = capture(module(), IDS, POSITIONS)
        for _, node in program.nodes():
            node.meta.update(path="", layer=None)
        run_passes(program, RaiseAttention(), *passes)
        return program

    return build


class Turned(nn.Module):
    """One weight for looking up and for scoring, as the head has it; kept: rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Parameter(values(4, 6))
        self.rows = nn.Parameter(values(6, 4, seed=1))

    def forward(self, ids: Tensor) -> Tensor:
        found = F.embedding(ids, self.head.permute(1, 0)) + F.embedding(ids, self.rows)
        return found @ self.head


TEXT = {"ids": IDS, "positions": POSITIONS}
EXPORTED = (
    PassCase(
        "effc.passes.raising.masks:RecognizeMasks",
        RecognizeMasks,
        prepared(Counting),
        named(**TEXT),
        applied=2,
    ),
    PassCase(
        "effc.passes.raising.positions:FindPositions",
        FindPositions,
        prepared(Counting, RecognizeMasks()),
        named(**TEXT),
        applied=1,
    ),
    PassCase(
        "effc.passes.raising.layers:NumberLayers",
        NumberLayers,
        prepared(Counting, RecognizeMasks()),
        named(**TEXT),
        applied=1,
    ),
    PassCase(
        "effc.passes.raising.table:RaiseTable",
        RaiseTable,
        **of_module(Turned, ids=torch.tensor([1, 5, 0])),
        applied=1,
    ),
)
