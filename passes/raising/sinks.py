"""Read attention sinks: one more score per head, which takes weight and gives no value.

    softmax(cat([scores, sinks]))[..., :-1]

Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023; learned per head as
in gpt-oss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from effc.ir.pattern import Match, op_name
from effc.ir.rewriter import GraphRewriter
from effc.passes.normalize.shapes import RESHAPES, is_last, rank, same_sizes, shape
from effc.passes.raising.scores import strip_casts, unshifted

aten = torch.ops.aten

_NO_SINK = "a part of the weights is cut off, and it is no sink"


@dataclass(frozen=True)
class Softmaxed:
    """What a softmax runs over.

    Attributes:
        scores: of the keys.
        sinks: [1, H, 1, 1] or [H, 1, 1], one score per head, if there are any.
    """

    scores: fx.Node
    sinks: fx.Node | None = None


def read_softmaxed(found: Match) -> Softmaxed | str:
    """Scores and sinks behind a softmax; the reason if what is cut off its result is no sink."""
    outer = found["scores"]
    if "cut" not in found.bound:
        return Softmaxed(outer)
    joined = unshifted(strip_casts(outer))
    items: Any = joined.args[0] if op_name(joined) == "aten.cat.default" else ()
    dim = joined.args[1] if len(joined.args) > 1 else 0
    whole = is_last(found["cut_dim"], outer) and found["cut"] == -1
    if not whole or len(items) != 2 or not is_last(dim, joined):
        return _NO_SINK
    scores, column = items
    sinks = column.args[0] if op_name(column) == "aten.expand.default" else column
    sinks = strip_casts(sinks)
    return Softmaxed(scores, sinks) if _is_per_head(sinks, scores) else _NO_SINK


def _is_per_head(sinks: fx.Node, scores: fx.Node) -> bool:
    """Whether there is one number per head, the same for all queries."""
    sizes = shape(sinks)
    heads = shape(scores)[1] if rank(scores) == 4 else None
    wanted = ((1, heads, 1, 1), (heads, 1, 1))
    return isinstance(heads, int) and any(same_sizes(sizes, one) for one in wanted)


def as_vector(rewriter: GraphRewriter, sinks: fx.Node | None) -> fx.Node | None:
    """The sinks as [H]."""
    if sinks is None:
        return None
    source = sinks.args[0] if op_name(sinks) in RESHAPES else None
    if isinstance(source, fx.Node) and rank(source) == 1:
        return source
    return rewriter.call(aten.reshape.default, sinks, [sinks.meta["val"].numel()])
