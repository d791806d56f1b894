"""FLOPs and bytes of a stage, operator by operator, for given sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from effc.cost import operators
from effc.cost.operators import packet
from effc.cost.shapes import Shapes, tensors, value_of
from effc.cost.visibility import keys_read
from effc.ir.program import Stage
from effc.kernels.paged.formats import page_format


@dataclass
class Cost:
    """What calls compute and move.

    Attributes:
        flops: two per multiply-add.
        weights, cache, activations: bytes read and written.
    """

    flops: int = 0
    weights: int = 0
    cache: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.weights + other.weights,
            self.cache + other.cache,
            self.activations + other.activations,
        )

    @property
    def moved(self) -> int:
        """All bytes."""
        return self.weights + self.cache + self.activations


@dataclass
class StageCost:
    """The cost of one run of a stage.

    Attributes:
        total: over all calls.
        by_operator: the same by operator, e.g. "aten.linear".
        unknown: operators without an entry in the tables, counted as elementwise, with their
            number of calls.
        assumed: sizes taken from the captured example, see `Shapes`.
    """

    total: Cost = field(default_factory=Cost)
    by_operator: dict[str, Cost] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    assumed: dict[str, int] = field(default_factory=dict)

    @property
    def products(self) -> int:
        """FLOPs of operators that are sums of products, as `FlopCounterMode` counts them."""
        return sum(c.flops for name, c in self.by_operator.items() if name in operators.PRODUCTS)


@dataclass(frozen=True)
class Situation:
    """What a stage's cost depends on besides its graph.

    Attributes:
        sizes: numbers for the stage's size names, e.g. {"B": 1, "T": 512}.
        held: tokens per sequence that the cache holds before the call.
        stored: node -> bytes of its weight where it will be stored differently.
        cached: attention node -> bytes that the cache takes per token and sequence; attention that
            is not named here has no cache.
        logit_rows: nodes that will run for one row per sequence instead of T.
    """

    sizes: Mapping[str, int]
    held: int = 0
    stored: Mapping[str, int] = field(default_factory=dict)
    cached: Mapping[str, int] = field(default_factory=dict)
    logit_rows: Collection[str] = ()


def stage_cost(stage: Stage, situation: Situation) -> StageCost:
    """The cost of a stage, canonical or lowered.

    Args:
        stage: captured, so that its nodes carry fake values.
        situation: sizes and what the plan changes.
    """
    shapes = Shapes(stage, situation.sizes)
    rows = Shapes(stage, {**situation.sizes, "T": 1})
    result = StageCost()
    for node in stage.graph.nodes:
        if node.op != "call_function":
            continue
        cost, known = _call(node, rows if node.name in situation.logit_rows else shapes, situation)
        name = packet(node)
        if not known:
            result.unknown[name] = result.unknown.get(name, 0) + 1
        result.by_operator[name] = result.by_operator.get(name, Cost()) + cost
        result.total += cost
    result.assumed = {**shapes.assumed, **rows.assumed}
    return result


def _call(node: fx.Node, shapes: Shapes, situation: Situation) -> tuple[Cost, bool]:
    flops, known = operators.flops(node, shapes, situation.held)
    if operators.is_view(node):
        return Cost(flops), known
    reads = [n for n in node.all_input_nodes if n.op != "get_attr"]
    state = set(_planes(node))
    cost = Cost(
        flops,
        _weight_bytes(node, shapes, situation.stored.get(node.name)),
        _cache_bytes(node, shapes, situation),
        sum(shapes.nbytes(value_of(n)) for n in reads if n not in state),
    )
    if not state or packet(node) == "effc.attend":
        cost.activations += shapes.nbytes(value_of(node))
    return cost, known


def _weight_bytes(node: fx.Node, shapes: Shapes, stored: int | None) -> int:
    """Bytes of weights that a call reads.

    Tables are read where rows are asked for, and of experts no more than there are rows.
    """
    weights = [n for n in node.all_input_nodes if n.op == "get_attr"]
    if not weights:
        return 0
    whole = {n: shapes.nbytes(value_of(n)) for n in weights}
    name = packet(node)
    if name in _PARTIAL:
        count, of = _PARTIAL[name](node, shapes)
        main = stored if stored is not None else sum(whole.values())
        return main * min(count, of) // max(1, of)
    if stored is not None:
        whole[weights[_main(node, weights)]] = stored
    if name in operators.COPIES:
        result = shapes.nbytes(value_of(node))
        return sum(min(size, result) for size in whole.values())
    return sum(whole.values())


def _main(node: fx.Node, weights: list[fx.Node]) -> int:
    """Which of the weights of a linear, embedding or experts call is stored by methods."""
    matrices = [i for i, weight in enumerate(weights) if value_of(weight).dim() >= 2]
    return matrices[0] if matrices else 0


def _rows_of_table(node: fx.Node, shapes: Shapes) -> tuple[int, int]:
    table, ids = (value_of(arg) for arg in node.args[:2])  # type: ignore[arg-type]
    return shapes.numel(ids), shapes.of(table)[0]


def _rows_of_packed_table(node: fx.Node, shapes: Shapes) -> tuple[int, int]:
    ids, codes = (value_of(arg) for arg in node.args[:2])  # type: ignore[arg-type]
    return shapes.numel(ids), shapes.of(codes)[0]


def _experts(node: fx.Node, shapes: Shapes) -> tuple[int, int]:
    x, weight = (value_of(arg) for arg in node.args[:2])  # type: ignore[arg-type]
    return shapes.of(x)[0], shapes.of(weight)[0]


# Operator -> (rows it reads, rows there are).
_PARTIAL: dict[str, Any] = {
    "aten.embedding": _rows_of_table,
    "effc.quantized_embedding": _rows_of_packed_table,
    "effc.grouped_linear": _experts,
    "effc.quantized_grouped_linear": _experts,
}


def _cache_bytes(node: fx.Node, shapes: Shapes, situation: Situation) -> int:
    """Bytes that a call reads from the cache or writes to it."""
    name = packet(node)
    if name == "effc.attention" and node.name in situation.cached:
        batch, _, tokens, _ = shapes.of(value_of(node.args[0]))  # type: ignore[arg-type]
        mask = operators.mask_of(node, *operators.ATTENTION_ARGUMENTS)
        written = tokens
        read = keys_read(mask, tokens, situation.held)
        return batch * (written + read) * situation.cached[node.name]
    if name == "effc.attend":
        return _attend_bytes(node, shapes, situation.held)
    if name in ("effc.cache_write", "effc.cache_write_"):
        values = shapes.of(value_of(node.args[1]))  # type: ignore[arg-type]
        form = page_format(str(node.args[3]))
        return values[0] * values[1] * values[2] * form.bytes_per_token(values[3])
    return 0


def _attend_bytes(node: fx.Node, shapes: Shapes, held: int) -> int:
    batch, _, tokens, key_width = shapes.of(value_of(node.args[0]))  # type: ignore[arg-type]
    value_width = shapes.of(value_of(node))[-1]
    heads = int(tensors([value_of(n) for n in node.args[1]])[0].shape[1])  # type: ignore[union-attr]
    key_format, value_format = (page_format(str(name)) for name in node.args[3:5])
    per_token = key_format.bytes_per_token(key_width) + value_format.bytes_per_token(value_width)
    read = keys_read(operators.mask_of(node, *operators.ATTEND_ARGUMENTS), tokens, held)
    return batch * heads * read * per_token


def _planes(node: fx.Node) -> list[fx.Node]:
    """The planes of the cache among a call's inputs: not activations."""
    name = packet(node)
    if name == "effc.attend":
        return [*node.args[1], *node.args[2]]  # type: ignore[misc]
    return list(node.args[0]) if name.startswith("effc.cache_write") else []  # type: ignore[arg-type]


def logit_rows(stage: Stage) -> frozenset[str]:
    """Nodes of a decoder that run for the asked rows only once a cache is inserted.

    These are the head and what follows it, where each node leads to the next alone: a linear and
    whatever scales, caps or casts its result.
    """
    results = [node for node in stage.results().values() if isinstance(node, fx.Node)]
    chain: list[fx.Node] = []
    node = results[0] if len(results) == 1 else None
    while node is not None and node.op == "call_function" and len(node.users) == 1:
        chain.append(node)
        if packet(node) in ("aten.linear", "effc.quantized_linear"):
            return frozenset(n.name for n in chain)
        inputs = [n for n in node.all_input_nodes if n.op == "call_function"]
        node = inputs[0] if len(inputs) == 1 else None
    return frozenset()
