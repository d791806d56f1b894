"""Evidence that a method acted in a real run, not only in the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import fx

from effc.ir.pattern import op_name
from effc.ir.program import CacheSite, Program
from effc.kernels.paged.formats import page_format, plain_format

Counters = Mapping[str, Any]


class Step(Protocol):
    """What is read of a step of the plan."""

    @property
    def aspect(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def site(self) -> Any: ...


@dataclass(frozen=True)
class MethodUse:
    """A method and the sites that the plan gave it.

    Attributes:
        aspect: "quantize", "store", "kv", ...
        method: its name.
        sites: names of the sites.
    """

    aspect: str
    method: str
    sites: tuple[str, ...]

    @staticmethod
    def of_steps(steps: Iterable[Step]) -> list[MethodUse]:
        """The methods of a plan."""
        return MethodUse.of_names((s.aspect, s.method, s.site.name) for s in steps)

    @staticmethod
    def of_names(steps: Iterable[tuple[str, str, str]]) -> list[MethodUse]:
        """The methods in steps (aspect, method, site name)."""
        sites: dict[tuple[str, str], list[str]] = {}
        for aspect, method, site in steps:
            sites.setdefault((aspect, method), []).append(site)
        return [MethodUse(*key, tuple(names)) for key, names in sites.items()]


def fired(
    program: Program, methods: Sequence[MethodUse], counters: Counters
) -> list[dict[str, object]]:
    """The entry "fired" of a quality report: what shows that each method acted.

    Args:
        program: that ran.
        methods: of its plan.
        counters: "calls" (stage -> how often it ran) and those of a generation.
    """
    entries = []
    for use in methods:
        evidence = _EVIDENCE.get(use.aspect, _no_evidence)
        text, ok = evidence(program, use, counters)
        entries.append({"method": f"{use.aspect} {use.method}", "evidence": text, "ok": ok})
    return entries


def _quantized(program: Program, use: MethodUse, counters: Counters) -> tuple[str, bool]:
    """Every planned site reads packed planes, in a stage that ran."""
    names, found, planes = set(use.sites), set(), set()
    calls = 0
    for stage, node in program.nodes():
        at = names & _names_of(node) if op_name(node).startswith("effc.quantized_") else None
        if at:
            found |= at
            calls += counters.get("calls", {}).get(stage.name, 0)
            planes |= {str(arg.target) for arg in node.all_input_nodes if arg.op == "get_attr"}
    held = sum(program.weights[name].nbytes for name in planes)
    text = (
        f"{len(found)} of {len(names)} sites compute with packed weights, {calls} calls in this "
        f"run; {held} bytes stand for those weights"
    )
    return text, found == names and calls > 0


def _names_of(node: fx.Node) -> set[str]:
    """What the site of a rewritten node may have been called: its module, or its weight."""
    codes = [str(arg.target) for arg in node.all_input_nodes if arg.op == "get_attr"]
    stems = {name.removesuffix(".codes").partition("~")[0] for name in codes}
    return {str(node.meta.get("path") or ""), *stems}


def _stored(program: Program, use: MethodUse, counters: Counters) -> tuple[str, bool]:
    """Pages of the planned sites are smaller than plain ones, and some were held."""
    names = set(use.sites)
    sites = [site for site in program.cache_sites if site.name in names]
    plain = plain_format(program.info.dtype)
    packed = [s for s in sites if plain not in (s.key_format, s.value_format)]
    forms = sorted({f"{site.key_format}/{site.value_format}" for site in packed})
    held, before, after = counters.get("bytes_held", 0), 0, 0
    for site in program.cache_sites:
        before += _token_bytes(site, plain, plain)
        after += _token_bytes(site, site.key_format, site.value_format)
    instead = held * before // after if after else 0
    text = (
        f"{len(packed)} of {len(names)} sites store {', '.join(forms) or 'plain pages'}; the cache "
        f"held {held} bytes where {plain} pages take {instead}"
    )
    return text, len(packed) == len(names) and 0 < held < instead


def _token_bytes(site: CacheSite, keys: str, values: str) -> int:
    """Bytes of one token of a site in these formats."""
    per_head = page_format(keys).bytes_per_token(site.key_width)
    per_head += page_format(values).bytes_per_token(site.value_width)
    return site.kv_heads * per_head


def _evicted(program: Program, use: MethodUse, counters: Counters) -> tuple[str, bool]:
    count = counters.get("tokens_evicted", 0)
    return f"{count} tokens were evicted from {len(use.sites)} sites", count > 0


def _no_evidence(program: Program, use: MethodUse, counters: Counters) -> tuple[str, bool]:
    return f"no counter of this version shows what a method of {use.aspect!r} did", False


Evidence = Callable[[Program, MethodUse, Counters], tuple[str, bool]]

_EVIDENCE: dict[str, Evidence] = {"quantize": _quantized, "store": _stored, "kv": _evicted}
