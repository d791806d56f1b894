"""Closed forms of what a plan stores: packed weights, and pages of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from effc.cost.operators import ATTENTION_ARGUMENTS, mask_of, packet
from effc.cost.shapes import value_of
from effc.ir.program import Program
from effc.kernels.paged.formats import page_format, plain_format
from effc.passes import registry
from effc.passes.caching.insert_cache import InsertCache
from effc.runtime.session import PREFILL_CHUNK
from effc.spec.plan import Plan, SiteKey, Step

DECODER = "forward"
"""The stage that gets the cache."""

INDEX_BYTES = 4
"""Bytes of a page number in a table, and of a token index beside a slot: int32."""


def method_of(step: Step) -> Any:
    """The method of a step with its options."""
    return registry.method(step.aspect, step.method)(**step.options)


@dataclass(frozen=True)
class WeightStore:
    """How the weights are stored under a plan.

    Attributes:
        total: bytes of all weights that the program reads, each copy once.
        at: (stage, node) -> bytes of the packed weight that the node will read.
    """

    total: int
    at: Mapping[SiteKey, int]


def weight_store(program: Program, plan: Plan) -> WeightStore:
    """What the weights take once a plan is carried out.

    Nodes that treat a shared weight alike share one copy; every other treatment has its own.
    """
    steps = {(s.site.stage, s.site.node): method_of(s) for s in plan.of("quantize")}
    copies: dict[tuple[str, object, bool], int] = {}
    at: dict[SiteKey, int] = {}
    for stage, node in program.nodes():
        method = steps.get((stage.name, node.name))
        for read in node.all_input_nodes:
            if read.op != "get_attr":
                continue
            name, weight = str(read.target), program.weights[str(read.target)]
            if method is None or read is not node.args[_weight_argument(node)]:
                copies[name, None, False] = weight.nbytes
                continue
            turned = packet(node) == "effc.grouped_linear" and bool(node.args[4])
            shape = weight.shape[:-2] + weight.shape[-2:][::-1] if turned else weight.shape
            size = method.bytes(shape)
            copies[name, method, turned] = at[stage.name, node.name] = size
    return WeightStore(sum(copies.values()), at)


def _weight_argument(node: fx.Node) -> int:
    return 0 if packet(node) == "aten.embedding" else 1


@dataclass(frozen=True)
class CachedSite:
    """One attention with a cache.

    Attributes:
        node: its graph node.
        kv_heads: H_kv.
        per_token: bytes of one token of one sequence, keys and values of all heads.
        plain: the same in the program's own type.
        window: tokens that stay; None keeps all.
    """

    node: str
    kv_heads: int
    per_token: int
    plain: int
    window: int | None


@dataclass(frozen=True)
class CacheStore:
    """The cache of a decoder under a plan.

    Attributes:
        sites: one per attention.
        page_size: P.
    """

    sites: tuple[CachedSite, ...]
    page_size: int = InsertCache.page_size

    @property
    def windows(self) -> list[int]:
        """The windows of groups that evict by them."""
        return [site.window for site in self.sites if site.window is not None]

    def chunk(self, context: int) -> int:
        """The most prompt tokens that the engine feeds at once."""
        most = max(self.page_size, min([PREFILL_CHUNK, *self.windows]))
        return min(context, most)

    def pages(self, window: int | None, context: int) -> int:
        """Pages of one sequence: for `context` tokens, or for a window and one chunk."""
        if window is not None:
            context = min(context, window - 1 + self.page_size - 1 + self.chunk(context))
        return -(-context // self.page_size)

    def site_bytes(self, site: CachedSite, context: int, batch: int, *, plain: bool = False) -> int:
        """Bytes of a site's pools for `batch` sequences of `context` tokens."""
        slots = batch * self.pages(site.window, context) * self.page_size
        return slots * (site.plain if plain else site.per_token)

    def pool_bytes(self, context: int, batch: int) -> int:
        """Bytes of all pools."""
        return sum(self.site_bytes(site, context, batch) for site in self.sites)

    def metadata_bytes(self, context: int, batch: int) -> int:
        """Bytes of full page tables, and of token indices where a group evicts."""
        total = 0
        for window in {site.window for site in self.sites}:
            pages = batch * self.pages(window, context)
            indices = 0 if window is None else pages * self.page_size
            total += INDEX_BYTES * (pages + indices)
        return total


def cache_store(program: Program, plan: Plan) -> CacheStore:
    """The cache that a decoder will get; the program must be one."""
    plain = plain_format(program.info.dtype)
    stores = {s.site.node: method_of(s).formats() for s in plan.of("store")}
    calls = [n for n in program.stages[DECODER].graph.nodes if packet(n) == "effc.attention"]
    return CacheStore(tuple(_cached_site(n, plain, stores.get(n.name)) for n in calls))


def _cached_site(node: fx.Node, plain: str, formats: tuple[str, str] | None) -> CachedSite:
    keys, values = (value_of(arg) for arg in node.args[1:3])  # type: ignore[arg-type]
    heads, widths = int(keys.shape[1]), (int(keys.shape[3]), int(values.shape[3]))

    def per_token(names: tuple[str, str]) -> int:
        pairs = zip(names, widths, strict=True)
        return heads * sum(page_format(name).bytes_per_token(width) for name, width in pairs)

    return CachedSite(
        node=node.name,
        kv_heads=heads,
        per_token=per_token(formats or (plain, plain)),
        plain=per_token((plain, plain)),
        window=mask_of(node, *ATTENTION_ARGUMENTS).window,
    )
