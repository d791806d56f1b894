"""Bytes by site add up to the bytes of the model."""

from __future__ import annotations

from typing import Any

from effc.report import sections, sizes


def site(name: str, before: int, after: int, **more: Any) -> dict[str, Any]:
    known = {"kind": "linear", "layer": None, "weight": name, "method": None}
    return {"name": name, "bytes_before": before, "bytes_after": after, **known, **more}


def totals(sites: list[dict[str, Any]]) -> tuple[int, int]:
    held = sizes.held(sites)
    return sum(s.before for s in held), sum(s.after for s in held)


def test_a_shared_weight_counts_once() -> None:
    tied = [
        site("embed", 100, 25, weight="w", method="rtn"),
        site("head", 100, 25, weight="w", method="rtn"),
    ]
    assert totals(tied) == (100, 25)


def test_a_weight_that_comes_apart_counts_once_before_and_twice_after() -> None:
    untied = [site("embed", 100, 100, weight="w"), site("head", 100, 25, weight="w", method="rtn")]
    assert totals(untied) == (100, 125)


def test_layers_hold_weights_and_the_cache_is_a_kind_of_its_own() -> None:
    sites = [
        site("embed", 400, 100, kind="embedding"),
        site("a", 100, 50, layer=1),
        site("b", 100, 50, layer=0),
        site("attention", 70, 20, kind="attention", layer=0, weight=None),
    ]
    held = sizes.held(sites)
    layers, outside = sizes.by_layer(held)
    assert [(g.name, g.before, g.after) for g in layers] == [("0", 100, 50), ("1", 100, 50)]
    assert outside is not None and (outside.before, outside.after) == (400, 100)
    names = [group.name for group in sizes.by_kind(held)]
    assert names == ["embedding", "linear", "cache at full context"]


def test_sites_without_sizes_are_left_out() -> None:
    sites = [site("a", 1, 1), {"name": "b", "bytes_before": None, "bytes_after": 3}, {"name": "c"}]
    assert [s["name"] for s in sizes.sized(sites)] == ["a"]


def test_the_reference_model_adds_up(written: dict[str, Any]) -> None:
    """All its weights belong to sites, so their sums are the bytes of the whole program."""
    held = [entry for entry in sizes.held(sizes.sized(written["sites"])) if not entry.cache]
    sums = sum(entry.before for entry in held), sum(entry.after for entry in held)
    rest = written["bytes"]["weights_before"] - sums[0]
    assert sums[1] + rest == written["bytes"]["weights_after"]
    assert 0 <= rest < 1024


def test_ranges() -> None:
    assert sections.ranges([2, 0, 1, 5, 7, 8]) == "0–2, 5, 7–8"
    assert sections.ranges([None, 3]) == "3, outside"
    assert sections.ranges([None]) == "outside"
    assert sections.ranges([]) == ""


def test_alike_near_misses_and_cache_sites_are_told_once() -> None:
    miss = {"rule": "r", "stage": "forward", "reason": "x"}
    rows = sections.misses([miss | {"node": "a"}, miss | {"node": "b"}, miss | {"reason": "y"}])
    assert [(row["count"], row["reason"]) for row in rows] == [(2, "x"), (1, "y")]
    form = {"kv_heads": 2, "key_width": 4, "value_width": 4, "key_format": "fp32"}
    cache = [form | {"layer": i, "value_format": "int8" if i == 2 else "fp32"} for i in range(4)]
    assert [(r["layers"], r["sites"]) for r in sections.cache_rows(cache)] == [
        ("0–1, 3", 3),
        ("2", 1),
    ]
