"""A plan on a program at given sizes: the figures behind a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effc.cost.graph import Cost, Situation, StageCost, logit_rows, stage_cost
from effc.cost.liveness import Peak, live_peak
from effc.cost.storage import (
    DECODER,
    CacheStore,
    WeightStore,
    cache_store,
    method_of,
    weight_store,
)
from effc.diagnostics import PassError
from effc.ir.passbase import read_bytes
from effc.ir.program import EMBED, ENCODE, Program
from effc.ir.sites import Site
from effc.passes.caching.insert_cache import InsertCache
from effc.spec.plan import Plan, Step
from effc.spec.schema import Policy

PROMPT = 512
"""Tokens of the prompt that a prefill is predicted for, if the context holds as many."""

LARGEST = 5
"""How many of the biggest contributors are listed."""


@dataclass(frozen=True)
class Forecast:
    """A plan on a program, with the sizes it is judged at.

    Attributes:
        program: canonical.
        steps: (stage, node) -> what the plan does there.
        weights: how the weights will be stored.
        cache: how keys and values will be; without sites for what is no decoder.
        sizes: context, batch and prompt.
    """

    program: Program
    steps: Mapping[tuple[str, str], Sequence[Step]]
    weights: WeightStore
    cache: CacheStore
    sizes: dict[str, int]

    @classmethod
    def of(
        cls,
        program: Program,
        plan: Plan,
        policy: Policy,
        context: int | None,
        prompt: int | None,
    ) -> Forecast:
        """Settle the sizes and the closed forms."""
        context = context or program.info.context or PROMPT
        sizes = {
            "context": context,
            "batch": policy.target.batch,
            "prompt": min(context, prompt or PROMPT),
        }
        cache = cache_store(program, plan) if is_decoder(program) else CacheStore(())
        steps: dict[tuple[str, str], list[Step]] = {}
        for step in plan.steps:
            steps.setdefault((step.site.stage, step.site.node), []).append(step)
        return cls(program, steps, weight_store(program, plan), cache, sizes)

    @property
    def decodes(self) -> bool:
        """Whether the program will generate with a cache."""
        return bool(self.cache.sites)

    def stages(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The entries of `stages`, and notes on what was counted by assumption."""
        entries, notes = [], {}
        for name, runs in self._runs().items():
            costs = [self._cost(*run) for run in runs]
            total = sum((cost.total for cost in costs), Cost())
            entry = {
                "name": name,
                "tokens": sum(tokens for stage, tokens, _ in runs if stage != EMBED),
                "flops": total.flops,
                "bytes": {
                    "weights": total.weights,
                    "cache": total.cache,
                    "activations": total.activations,
                },
            }
            entries.append(entry)
            notes |= dict.fromkeys(note for cost in costs for note in _assumptions(name, cost))
        return entries, list(notes)

    def _runs(self) -> dict[str, list[tuple[str, int, int]]]:
        """What is predicted -> runs of stages: (stage, new tokens, tokens held before).

        A prompt is fed in the pieces in which the engine feeds it. A model that sees is given one
        image per sequence.
        """
        context, prompt = self.sizes["context"], self.sizes["prompt"]
        if not self.decodes:
            return {name: [(name, prompt, 0)] for name in self.program.stages}
        chunk = self.cache.chunk(context)
        pieces = [(min(chunk, prompt - at), at) for at in range(0, prompt, chunk)]
        fed = {"prefill": pieces, "decode": [(1, context - 1)]}
        reading = [stage for stage in (EMBED, DECODER) if stage in self.program.stages]
        runs = {name: [(stage, *at) for at in steps for stage in reading]
                for name, steps in fed.items()}  # fmt: skip
        if ENCODE not in self.program.stages:
            return runs
        return {ENCODE: [(ENCODE, self.program.info.image_tokens or 0, 0)], **runs}

    def peak(self) -> Peak:
        """The worst moment of any stage, at the longest step that the engine makes."""
        context, prompt = self.sizes["context"], self.sizes["prompt"]
        tokens = self.cache.chunk(context) if self.decodes else prompt
        found = [
            live_peak(stage, self._situation(name, tokens, 0))
            for name, stage in self.program.stages.items()
        ]
        return max(found, key=lambda peak: peak.nbytes)

    def bytes(self, peak: Peak) -> dict[str, int]:
        """The entries of `bytes`."""
        context, batch = self.sizes["context"], self.sizes["batch"]
        pools = self.cache.pool_bytes(context, batch)
        metadata = self.cache.metadata_bytes(context, batch)
        return {
            "weights_before": read_bytes(self.program),
            "weights_after": self.weights.total,
            "cache_per_token": sum(site.per_token for site in self.cache.sites),
            "cache_at_context": pools,
            "cache_metadata": metadata,
            "activations": peak.nbytes,
            "peak": self.weights.total + pools + metadata + peak.nbytes,
        }

    def site(self, site: Site) -> dict[str, Any]:
        """One entry of `sites`."""
        steps = self.steps.get((site.stage, site.node), ())
        before, after = self._site_bytes(site)
        return {
            "name": site.name,
            "kind": site.kind,
            "layer": site.layer,
            "stage": site.stage,
            "weight": site.weight,
            "method": ", ".join(map(label, steps)) or None,
            "bytes_before": before,
            "bytes_after": after,
        }

    def largest(self, sites: Sequence[Site], peak: Peak) -> list[dict[str, Any]]:
        """What takes most of the peak: (what, bytes), the biggest first."""
        parts: dict[str, int] = {}
        for site in sites:
            key = site.weight or f"cache of {site.name}"
            parts[key] = max(parts.get(key, 0), self._site_bytes(site)[1])
        where = f" at {peak.place}" if peak.place else ""
        parts[f"activations{where}"] = peak.nbytes
        ranked = sorted(parts.items(), key=lambda part: -part[1])[:LARGEST]
        return [{"what": what, "bytes": size} for what, size in ranked if size]

    def _site_bytes(self, site: Site) -> tuple[int, int]:
        if site.weight is not None:
            stored = site.planes or (site.weight,)
            before = sum(self.program.weights[name].nbytes for name in stored)
            return before, self.weights.at.get((site.stage, site.node), before)
        cached = next((s for s in self.cache.sites if s.node == site.node), None)
        if cached is None or site.stage != DECODER:
            return 0, 0
        at = self.sizes["context"], self.sizes["batch"]
        return self.cache.site_bytes(cached, *at, plain=True), self.cache.site_bytes(cached, *at)

    def _cost(self, stage: str, tokens: int, held: int) -> StageCost:
        return stage_cost(self.program.stages[stage], self._situation(stage, tokens, held))

    def _situation(self, stage: str, tokens: int, held: int) -> Situation:
        batch, decodes = self.sizes["batch"], self.decodes and stage == DECODER
        return Situation(
            sizes={"B": batch, "T": tokens, "N": batch, "F": batch * tokens},
            held=held,
            stored={node: size for (s, node), size in self.weights.at.items() if s == stage},
            cached={site.node: site.per_token for site in self.cache.sites} if decodes else {},
            logit_rows=logit_rows(self.program.stages[stage]) if decodes else (),
        )


def is_decoder(program: Program) -> bool:
    """Whether the program will get a cache."""
    try:
        InsertCache().requires(program)
    except PassError:
        return False
    return True


def label(step: Step) -> str:
    """A step in a few words, e.g. "rtn 4 bits"."""
    bits = getattr(method_of(step), "bits", None)
    return f"{step.method} {bits} bits" if isinstance(bits, int) else step.method


def _assumptions(name: str, cost: StageCost) -> list[str]:
    notes = [
        f"{name}: {count} calls of {operator} are counted as elementwise"
        for operator, count in cost.unknown.items()
    ]
    notes += [
        f"{name}: size {size} is taken from the example: {value}"
        for size, value in cost.assumed.items()
    ]
    return notes
