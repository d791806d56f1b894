"""Insert the cache: a cacheless causal decoder becomes the stage `decode`.

Before:
    def forward(ids, positions):
        o = effc.attention(q, k, v, None, True, window, chunk, scale, softcap, sinks)
        y = aten.linear(h, head)
        return (y,)
After:
    def decode(ids, positions, new_len, logit_rows, tree_mask, lengths,
               table_full, slots_full, k0, v0, ...):
        i = effc.token_index(lengths, new_len, ids)
        k1 = effc.cache_write([k0], k, slots_full, "fp32")
        v1 = effc.cache_write([v0], v, slots_full, "fp32")
        o = effc.attend(q, k1, v1, "fp32", "fp32", table_full, None, i, lengths, tree_mask,
                        True, window, chunk, scale, softcap, sinks)
        r = effc.select_rows(h, logit_rows)
        y = aten.linear(r, head)
        return (y, lengths + new_len, k1[0], v1[0], ...)

One stage serves prefill (T tokens), decode (1) and verification (draft + 1): rows are ragged
through `new_len`, logits are computed only for the rows asked for. A decoder that reads
`embeds` [B, T, W] instead of `ids` keeps that input, and counts tokens by `positions`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import fx
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic

from effc.diagnostics import PassError
from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import CacheSite, InputSpec, Program, RetentionGroup, ScheduleEntry, Stage
from effc.ir.rewriter import GraphRewriter, fake_mode_of
from effc.ir.token_wise import obstacles
from effc.kernels.paged.formats import page_format
from effc.passes.kv_compression.method import StoreMethod

ATTENTION = "effc.attention.default"
HEADS = ("aten.linear.default", "effc.quantized_linear.default")


@dataclass(frozen=True)
class InsertCache(Pass):
    """Give a causal decoder its cache.

    Attributes:
        format: page format of keys and values.
        page_size: tokens per page.
        stores: (stage, node name) of an attention -> the method that stores its keys and values
            in another format.
    """

    name: ClassVar[str] = "insert-cache"
    stage: ClassVar[PassStage] = PassStage.TRANSFORM

    format: str = "fp32"
    page_size: int = 32
    stores: Mapping[tuple[str, str], StoreMethod] = field(default_factory=dict, hash=False)

    def requires(self, program: Program) -> None:
        """Every attention is causal self-attention, and nothing else mixes tokens."""
        stage = program.stages.get("forward")
        if stage is None or stage.token_input is None:
            raise PassError(
                "E0405", "the program is no decoder: it needs a stage 'forward' of ids, positions"
            )
        if stage.outputs != ("logits",):
            raise PassError(
                "E0405",
                f"a decoder returns logits alone, this model {', '.join(stage.outputs)}",
                where=program.info.source,
            )
        calls = [node for node in stage.graph.nodes if op_name(node) == ATTENTION]
        if not calls:
            raise PassError(
                "E0405",
                "the model has no attention that effc recognizes, so there is nothing to cache",
                where=program.info.source,
                help="recurrent and state-space models are not supported",
            )
        for node in calls:
            _check_attention(node)
        _check_sizes(program, stage)
        found = next(obstacles(stage, stage.token_input), None)
        if found is not None:
            raise PassError(
                "E0405",
                f"{op_name(found.node) or found.node.target} {found.reason}; with a cache the "
                "model would compute something else",
                where=str(found.node.meta.get("path") or program.info.source),
                help="only models that mix tokens in causal attention alone can be decoded",
            )

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """Rewrite "forward" into "decode"; one outcome per attention."""
        stage = program.stages.pop("forward")
        stage.name = "decode"
        program.stages["decode"] = stage
        insertion = _Insertion(self, program, stage, self.rewriter(program, stage, journal))
        outcomes = insertion.run()
        program.page_size = self.page_size
        program.loop = "autoregressive"
        return outcomes


def _check_sizes(program: Program, stage: Stage) -> None:
    sizes = stage.placeholder(str(stage.token_input)).meta["val"].shape[:2]
    fixed = [
        f"{name} {size}"
        for name, size in zip(("batch", "length"), sizes, strict=True)
        if isinstance(size, int)
    ]
    if fixed:
        raise PassError(
            "E0405",
            f"the model takes {' and '.join(fixed)} only; a prompt and the tokens after it differ",
            where=program.info.source,
            help="export the model with batch and length left open",
        )


def _check_attention(node: fx.Node) -> None:
    q, k = (arg.meta["val"] for arg in node.args[:2])  # type: ignore[union-attr]
    dense, causal = node.args[3], node.args[4]
    where = str(node.meta.get("path") or node.name)
    if dense is not None or not causal:
        kind = "has a mask given as a tensor" if dense is not None else "is not causal"
        raise PassError(
            "E0405",
            f"attention {kind}, so it cannot be continued token by token",
            where=where,
            help="only causal attention (full, sliding or chunked) can use a cache",
        )
    if str(q.shape[2]) != str(k.shape[2]):
        raise PassError("E0405", "attention reads keys of another sequence", where=where)


class _Insertion:
    def __init__(
        self, options: InsertCache, program: Program, stage: Stage, rewriter: GraphRewriter
    ) -> None:
        self.options = options
        self.program = program
        self.stage = stage
        self.rewriter = rewriter
        self.mode = fake_mode_of(stage)
        self.ids = stage.placeholder("ids" if stage.token_input == "ids" else "positions")
        self.first = next(n for n in stage.graph.nodes if n.op != "placeholder")
        self.sizes: dict[str, torch.SymInt] = {}
        self.batch, self.tokens = self.ids.meta["val"].shape
        self.groups: dict[str, RetentionGroup] = {}
        self.sites: list[CacheSite] = []
        self.written: dict[str, fx.Node] = {}

    def run(self) -> list[Outcome]:
        b, t = self.batch, self.tokens
        self.new_len = self.input("new_len", torch.int64, ("B",), (b,))
        rows = self.input("logit_rows", torch.int64, ("B", "R"), (b, self.size("R", 5)))
        self.tree = self.input("tree_mask", torch.bool, ("B", "T", "T"), None, optional=True)
        self.lengths = self.input("lengths", torch.int64, ("B",), (b,), role="state")
        with self.rewriter.before(self.first):
            self.index = self.rewriter.call(
                torch.ops.effc.token_index.default, self.lengths, self.new_len, self.ids
            )
        calls = [n for n in self.stage.graph.nodes if op_name(n) == ATTENTION]
        outcomes = [self.replace(node) for node in calls]
        outcomes.append(select_rows(self.rewriter, self.stage, rows, t))
        self.finish()
        return outcomes

    def replace(self, node: fx.Node) -> Outcome:
        """One attention: write the new keys and values, then read the cache."""
        q, k, v = node.args[:3]
        causal, window, chunk, scale, softcap, sinks = node.args[4:10]
        group = self.group(window)  # type: ignore[arg-type]
        site = self.site(node, k, v, group)  # type: ignore[arg-type]
        table, slots = (
            self.placeholder(f"table_{group.name}"),
            self.placeholder(f"slots_{group.name}"),
        )
        index = self.placeholder(f"index_{group.name}") if group.indexed else None
        with self.rewriter.before(node):
            keys = self.write(site, "k", site.key_format, k, slots)  # type: ignore[arg-type]
            values = self.write(site, "v", site.value_format, v, slots)  # type: ignore[arg-type]
            new = self.rewriter.call(
                torch.ops.effc.attend.default,
                q, keys, values, site.key_format, site.value_format,
                table, index, self.index, self.lengths, self.tree,
                causal, window, chunk, scale, softcap, sinks,
            )  # fmt: skip
        place = self.rewriter.graph_place(node)
        self.rewriter.replace(node, new)
        return Outcome(place, "applied")

    def group(self, window: int | None) -> RetentionGroup:
        """Layers with the same window keep the same tokens."""
        name = "full" if window is None else f"window{window}"
        if name not in self.groups:
            group = RetentionGroup(name, window=window, indexed=window is not None)
            self.groups[name] = group
            b, pages = self.batch, self.size(f"pages_{name}", 11)
            table = (b, 1, self.size(f"N_{name}", 6))
            self.input(f"table_{name}", torch.int32, ("B", 1, f"N_{name}"), table, role="state")
            slots = (b, 1, self.tokens)
            self.input(f"slots_{name}", torch.int64, ("B", 1, "T"), slots, role="state")
            if group.indexed:
                shape = (f"pages_{name}", self.options.page_size)
                sizes = (pages, self.options.page_size)
                self.input(f"index_{name}", torch.int32, shape, sizes, role="state")
        return self.groups[name]

    def site(self, node: fx.Node, k: fx.Node, v: fx.Node, group: RetentionGroup) -> CacheSite:
        keys, values = k.meta["val"], v.meta["val"]
        store = self.options.stores.get(("forward", node.name))
        plain = self.options.format
        key_format, value_format = (plain, plain) if store is None else store.formats()
        site = CacheSite(
            index=len(self.sites),
            name=str(node.meta.get("path") or node.name),
            layer=node.meta.get("layer"),
            kv_heads=int(keys.shape[1]),
            key_width=int(keys.shape[3]),
            value_width=int(values.shape[3]),
            key_format=key_format,
            value_format=value_format,
            group=group.name,
        )
        self.sites.append(site)
        return site

    def write(
        self, site: CacheSite, kind: str, format: str, values: fx.Node, slots: fx.Node
    ) -> list[fx.Node]:
        """New state inputs for one kind of plane, and the write that updates them."""
        width = site.key_width if kind == "k" else site.value_width
        pages = f"pages_{site.group}"
        lead = (site.kv_heads, self.options.page_size)
        planes = []
        pages_of = page_format(format)
        names = pages_of.input_names(f"{kind}{site.index}")
        for name, plane in zip(names, pages_of.planes, strict=True):
            tail = (*lead, *plane.shape(width))
            spec = (pages, *tail)
            sizes = (self.sizes[pages], *tail)
            planes.append(self.input(name, plane.dtype, spec, sizes, role="state"))
        written = self.rewriter.call(
            torch.ops.effc.cache_write.default, planes, values, slots, format
        )
        items = [self.rewriter.call(operator.getitem, written, i) for i in range(len(planes))]
        self.written |= {str(p.target): item for p, item in zip(planes, items, strict=True)}
        return items

    def finish(self) -> None:
        """State leaves under the name it came in by."""
        output = self.stage.output_node
        with self.rewriter.before(output):
            after = self.rewriter.call(torch.ops.aten.add.Tensor, self.lengths, self.new_len)
        self.rewriter.add_output("lengths", after)
        for name, node in self.written.items():
            self.rewriter.add_output(name, node)
        self.program.cache_sites = tuple(self.sites)
        self.program.groups = tuple(self.groups.values())
        self.program.schedule = tuple(
            ScheduleEntry("each_step", "evict_window", {"group": group.name})
            for group in self.groups.values()
            if group.window is not None
        )

    def size(self, name: str, hint: int) -> torch.SymInt:
        """A fresh symbolic size; hints are distinct so that none are taken for equal."""
        if name not in self.sizes:
            env = self.mode.shape_env
            assert env is not None, "captured with symbolic sizes"
            source = ConstantSource(f"effc_{name}")
            hint += 13 * len(self.sizes)
            symbol = env.create_symbol(hint, source, dynamic_dim=DimDynamic.DYNAMIC)
            node = env.create_symintnode(symbol, hint=hint, source=source)
            assert isinstance(node, torch.SymInt)
            self.sizes[name] = node
        return self.sizes[name]

    def input(
        self,
        name: str,
        dtype: torch.dtype,
        shape: tuple[int | str, ...],
        sizes: tuple[Any, ...] | None,
        *,
        role: str = "argument",
        optional: bool = False,
    ) -> fx.Node:
        value = None
        if sizes is not None:
            with self.mode:
                value = torch.empty(sizes, dtype=dtype)
        spec = InputSpec(name, dtype, shape, role, optional)
        return self.rewriter.add_input(spec, value)

    def placeholder(self, name: str) -> fx.Node:
        return self.stage.placeholder(name)


def select_rows(
    rewriter: GraphRewriter, stage: Stage, rows: fx.Node, tokens: torch.SymInt
) -> Outcome:
    """Gather the requested rows in front of the output head.

    Walks from the logits back through operators with one token-shaped input to the linear, stored
    in few bits or not, that makes them; where that fails the rows are gathered from the logits.
    """
    logits = stage.results()["logits"]
    assert logits is not None
    chain = _chain_to_linear(logits, tokens)
    if not chain:
        with rewriter.before(stage.output_node):
            chosen = rewriter.call(torch.ops.effc.select_rows.default, logits, rows)
        rewriter.set_outputs({**stage.results(), "logits": chosen})  # type: ignore[dict-item]
        return Outcome("logits", "applied", "rows are selected behind the head, not before it")
    head = chain[-1]
    with rewriter.before(head):
        chosen = rewriter.call(torch.ops.effc.select_rows.default, head.args[0], rows)
    rewriter.set_argument(head, 0, chosen)
    for node in reversed(chain):
        rewriter.retype(node)
    return Outcome(rewriter.graph_place(head), "applied")


def _chain_to_linear(logits: fx.Node, tokens: torch.SymInt) -> list[fx.Node]:
    chain = [logits]
    while op_name(chain[-1]) not in HEADS:
        inputs = [n for n in chain[-1].all_input_nodes if _has_size(n, tokens)]
        shaped = [n for n in chain[-1].all_input_nodes if isinstance(n.meta["val"], torch.SymInt)]
        if len(inputs) != 1 or shaped or inputs[0].op == "placeholder":
            return []
        chain.append(inputs[0])
    head = chain[-1].args[0]
    three = isinstance(head, fx.Node) and head.meta["val"].dim() == 3
    return chain if three and all(len(n.users) == 1 for n in chain) else []


def _has_size(node: fx.Node, tokens: torch.SymInt) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and str(tokens) in map(str, value.shape)
