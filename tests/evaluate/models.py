"""Small programs to compare: a decoder, its copies with altered weights, and its rewrites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from effc.ir.journal import Journal
from effc.ir.program import Program
from effc.ir.sites import Site, find_sites
from effc.ir.weights import Weight
from effc.pipeline import rewrite
from effc.spec.plan import Plan, Step
from effc.spec.schema import Policy
from tests.programs import Decoder, canonical, decoder, example_ids

CONTEXT = 48

POLICY = """version = 1
[target]
context = 96
[quality]
tokens = 128
max_kl = 0.5
[[quantize]]
where = "linear"
method = "rtn"
bits = 8
"""


def canonical_decoder(**info: object) -> Program:
    """The canonical program of the tiny decoder; 23 tokens, 2 layers, fp32."""
    program = canonical(decoder(), *example_ids())
    known = {"context": CONTEXT, "vocabulary": Decoder.V, "eos": (1,), "bos": 0} | info
    program.info = replace(program.info, **known)  # type: ignore[arg-type]
    return program


def quantized(sites: Iterable[Site], **options: object) -> Plan:
    """The plan that rounds the weights of these sites."""
    return Plan(tuple(Step("quantize", "rtn", options, site, "quantize", 0) for site in sites))


def lowered(program: Program, plan: Plan | None = None) -> Program:
    """A copy, rewritten and lowered."""
    copy = program.copy()
    rewrite(copy, Policy(), plan or Plan(), Journal())
    return copy


def linears(program: Program) -> list[Site]:
    """All sites of kind linear."""
    return [site for site in find_sites(program) if site.kind == "linear"]


def altered(program: Program, change: Callable[[str, Tensor], Tensor]) -> Program:
    """A copy whose weights are `change(name, values)`."""
    copy = program.copy()
    for name, weight in program.weights.items():
        copy.weights.set(name, Weight.of(change(name, weight.load())))
    return copy


def noisy(program: Program, scale: float, part: str = "") -> Program:
    """A copy with noise on the matrices whose names contain `part`."""
    generator = torch.Generator().manual_seed(6)

    def change(name: str, values: Tensor) -> Tensor:
        noise = torch.randn(values.shape, generator=generator)
        return values + scale * noise if part in name and values.dim() == 2 else values

    return altered(program, change)


def compiled(model: Path, out: Path) -> Path:
    """The artifact of a checkpoint under `POLICY`, made by the command."""
    from effc.cli import main

    spec = out.with_suffix(".toml")
    spec.write_text(POLICY)
    assert main(["compile", str(model), "--spec", str(spec), "-o", str(out)]) == 0
    return out
