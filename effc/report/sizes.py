"""Where the bytes are: weights and cache of the sites, grouped by kind and by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from effc.report.figures import is_number

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Held:
    """What one site holds; what it shares is held by the first site that uses it.

    Attributes:
        kind: of the site.
        layer: its layer, None outside of the layers.
        cache: whether these are keys and values at the full context, not weights.
        before, after: bytes.
    """

    kind: str
    layer: int | None
    cache: bool
    before: int
    after: int


@dataclass
class Group:
    """Sites that are shown as one.

    Attributes:
        name: a kind, or the number of a layer.
        sites: how many there are.
        before, after: bytes.
    """

    name: str
    sites: int = 0
    before: int = 0
    after: int = 0

    @property
    def outcome(self) -> str:
        """How it is drawn: "after", or "grown" when it takes more than before."""
        return "grown" if self.after > self.before else "after"


def sized(sites: Iterable[Json]) -> list[Json]:
    """The sites that hold bytes."""
    names = ("bytes_before", "bytes_after")
    return [site for site in sites if all(is_number(site.get(name)) for name in names)]


def held(sites: Iterable[Json]) -> list[Held]:
    """Bytes of sites such that they add up.

    A weight was there once, however many sites read it. Afterwards it is there once per treatment:
    sites that differ in method have a copy each.
    """
    originals: set[str] = set()
    copies: set[tuple[str, object, int]] = set()
    found = []
    for site in sites:
        before, after = site["bytes_before"], site["bytes_after"]
        weight = site.get("weight")
        if weight is not None:
            copy = (str(weight), str(site.get("method")), after)
            before, after = (before, after) if weight not in originals else (0, after)
            after = after if copy not in copies else 0
            originals.add(str(weight))
            copies.add(copy)
        layer = site.get("layer")
        inside = layer if isinstance(layer, int) else None
        found.append(Held(str(site.get("kind")), inside, weight is None, before, after))
    return found


def by_kind(sites: Iterable[Held]) -> list[Group]:
    """Groups of one kind, the largest first; kinds that hold nothing are left out."""
    groups = _grouped(sites, lambda site: "cache at full context" if site.cache else site.kind)
    return sorted((g for g in groups if g.before or g.after), key=lambda g: -g.before)


def by_layer(sites: Iterable[Held]) -> tuple[list[Group], Group | None]:
    """Weights by layer, in order, and what lies outside of the layers."""
    weights = [site for site in sites if not site.cache]
    inside = sorted((s for s in weights if s.layer is not None), key=lambda s: s.layer or 0)
    outside = _grouped((s for s in weights if s.layer is None), lambda site: "outside")
    return _grouped(inside, lambda site: str(site.layer)), outside[0] if outside else None


def _grouped(sites: Iterable[Held], name_of: Callable[[Held], str]) -> list[Group]:
    groups: dict[str, Group] = {}
    for site in sites:
        group = groups.setdefault(name_of(site), Group(name_of(site)))
        group.sites += 1
        group.before += site.before
        group.after += site.after
    return list(groups.values())
