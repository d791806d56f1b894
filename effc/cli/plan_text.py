"""The text of a plan: what is done where, what is left alone, what it should cost."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from effc.cli.output import print_table
from effc.cost.text import bytes_text, count_text, seconds_text

if TYPE_CHECKING:
    from effc.compilation import Planned
    from effc.spec.plan import RuleMatch, Step

WIDTH = 100

Prediction = Mapping[str, Any]


def print_sections(planned: Planned) -> None:
    """Everything, section by section, in at most `WIDTH` columns."""
    prediction = planned.prediction
    _print_head(planned)
    _print_rules(planned)
    _print_steps(planned)
    _print_left_alone(planned)
    _print_bytes(prediction)
    _print_stages(prediction)
    _print_peak(planned)
    for note in dict.fromkeys([*planned.notes, *prediction["notes"]]):
        _print_wrapped(f"note: {note}")


def _print_head(planned: Planned) -> None:
    info, target, count = planned.program.info, planned.policy.target, planned.prediction["bytes"]
    dtype = str(info.dtype).removeprefix("torch.")
    _print_wrapped(
        f"{info.family} from {info.source}: {len(planned.sites)} sites, "
        f"{bytes_text(count['weights_before'])} of weights in {dtype}, context {info.context}"
    )
    asked = [f"target {target.device}", f"batch {target.batch}"]
    asked += [f"memory {target.memory}"] if target.memory is not None else []
    print(", ".join(asked))


def _print_rules(planned: Planned) -> None:
    _section("rules")
    if not planned.plan.matches:
        print("none: nothing is compressed")
    for match in planned.plan.matches:
        does = ", ".join(f"{a}: {_choice(c.method, c.options)}" for a, c in match.choices.items())
        gate = f", gate {match.gate}" if match.gate else ""
        _print_wrapped(f'{_rule(match.table, match.rule)} where "{match.where}": {does}{gate}')
        _print_wrapped(f"{_matches(match)}  ({match.place})", indent=4)
        if match.nearest_miss:
            _print_wrapped(f"nearest miss: {match.nearest_miss}", indent=4)


def _matches(match: RuleMatch) -> str:
    if match.disabled:
        return f"matches {_sites(match.matched)}; disabled"
    overridden = f", overridden by later rules at {match.overridden}" if match.overridden else ""
    return f"matches {_sites(match.matched)}, applied at {match.applied}{overridden}"


def _print_steps(planned: Planned) -> None:
    if not planned.plan.steps:
        return
    _section("steps")
    groups: dict[tuple[str, ...], list[Step]] = {}
    for step in planned.plan.steps:
        does = f"{step.aspect}: {_choice(step.method, step.options)}"
        key = (general_name(step.site), does, _rule(step.table, step.rule))
        groups.setdefault(key, []).append(step)
    rows = [
        (len(steps), layers_text(s.site.layer for s in steps), *key)
        for key, steps in groups.items()
    ]
    print_table(("sites", "layers", "name", "method", "rule"), rows)


def _print_left_alone(planned: Planned) -> None:
    treated = {(s.site.stage, s.site.node) for s in planned.plan.steps}
    skipped = dict(planned.plan.skipped)
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for site in planned.sites:
        if (site.stage, site.node) not in treated:
            reason = skipped.get(site.name, "no rule selects it")
            groups.setdefault((general_name(site), site.kind, reason), []).append(site)
    if not groups:
        return
    _section("left alone")
    rows = [
        (len(sites), layers_text(s.layer for s in sites), name, kind, reason)
        for (name, kind, reason), sites in groups.items()
    ]
    print_table(("sites", "layers", "name", "kind", "why"), rows)


def _print_bytes(prediction: Prediction) -> None:
    _section("bytes")
    count, sizes = prediction["bytes"], prediction["sizes"]
    rows = [*_weights_by_kind(prediction)]
    rows.append(("all weights", count["weights_before"], count["weights_after"]))
    cached = [site for site in prediction["sites"] if site["kind"] == "attention"]
    if count["cache_at_context"]:
        before = sum(site["bytes_before"] for site in cached)
        name = f"cache, {sizes['batch']} x {sizes['context']} tokens"
        rows.append((name, before, count["cache_at_context"]))
    print_table(
        ("kind", "before", "after", "ratio"),
        [
            (kind, bytes_text(old), bytes_text(new), f"{old / new:.2f}" if new else "-")
            for kind, old, new in rows
        ],
    )


def _weights_by_kind(prediction: Prediction) -> Iterator[tuple[str, int, int]]:
    """(kind, bytes before, bytes after); a shared weight counts where it is first used."""
    before: dict[str, tuple[str, int]] = {}
    after: dict[tuple[str, str | None], tuple[str, int]] = {}
    for site in prediction["sites"]:
        if site["weight"] is not None:
            kind = before.setdefault(site["weight"], (site["kind"], site["bytes_before"]))[0]
            after.setdefault((site["weight"], site["method"]), (kind, site["bytes_after"]))
    totals = [0, 0]
    for kind in dict.fromkeys(kind for kind, _ in before.values()):
        old = sum(size for k, size in before.values() if k == kind)
        new = sum(size for k, size in after.values() if k == kind)
        totals = [totals[0] + old, totals[1] + new]
        yield kind, old, new
    count = prediction["bytes"]
    rest = (count["weights_before"] - totals[0], count["weights_after"] - totals[1])
    if any(rest):
        yield "other", *rest


def _print_stages(prediction: Prediction) -> None:
    _section("stages")
    rows = [
        (
            stage["name"],
            stage["tokens"],
            count_text(stage["flops"], "FLOP"),
            *(bytes_text(stage["bytes"][part]) for part in ("weights", "cache", "activations")),
            f"{stage['intensity']:.1f}",
            stage["regime"],
            seconds_text(stage["seconds"]),
        )
        for stage in prediction["stages"]
    ]
    header = ("stage", "tokens", "work", "weights", "cache", "activations", "FLOP/B", "bound by",
              "at least")  # fmt: skip
    print_table(header, rows)
    machine = prediction["machine"]
    _print_wrapped(
        f"machine: {machine['name']}, {count_text(machine['peak_flops'], 'FLOP/s')}, "
        f"{count_text(machine['bandwidth'], 'B/s')}, ridge "
        f"{machine['peak_flops'] / machine['bandwidth']:.1f} FLOP/B ({machine['source']})"
    )


def _print_peak(planned: Planned) -> None:
    _section("peak memory")
    count, sizes = planned.prediction["bytes"], planned.prediction["sizes"]
    cache = count["cache_at_context"] + count["cache_metadata"]
    parts = {"weights": count["weights_after"], "cache": cache, "activations": count["activations"]}
    summed = " + ".join(f"{bytes_text(size)} {name}" for name, size in parts.items() if size)
    limit = planned.policy.target.memory
    allowed = f", of {bytes_text(limit.evaluate())} allowed" if limit is not None else ""
    at = f"{sizes['batch']} x {sizes['context']} tokens"
    _print_wrapped(f"{bytes_text(count['peak'])} at {at}{allowed}: {summed}")
    largest = ", ".join(
        f"{part['what']} {bytes_text(part['bytes'])}" for part in planned.prediction["largest"][:3]
    )
    _print_wrapped(f"largest: {largest}")
    machine = planned.prediction["machine"]
    if count["peak"] > machine["memory"]:
        held = bytes_text(machine["memory"])
        _print_wrapped(f"this is more than the {held} of the machine: {machine['name']}")
    print()


def general_name(site: Any) -> str:
    """The name of a site with its layer index left open."""
    if site.layer is None:
        return site.name
    return re.sub(rf"(?<=\.){site.layer}(?=\.|$)", "*", site.name, count=1)


def layers_text(layers: Iterable[int | None]) -> str:
    """Layer indices as ranges, e.g. "0-3, 5"; "-" outside of layers."""
    runs: list[list[int]] = []
    for layer in sorted({layer for layer in layers if layer is not None}):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "-"


def _choice(method: str, options: Mapping[str, object]) -> str:
    return " ".join([method, *(f"{name}={value}" for name, value in options.items())])


def _rule(table: str, index: int) -> str:
    return f"[[{table}]] {index + 1}"


def _sites(count: int) -> str:
    return f"{count} site{'s' * (count != 1)}"


def _section(title: str) -> None:
    print(f"\n{title}")


def _print_wrapped(text: str, indent: int = 0) -> None:
    for line in _wrapped(text, indent):
        print(line)


def _wrapped(text: str, indent: int) -> Sequence[str]:
    first = " " * indent
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=first + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
