"""What the legality table promises: every "yes" runs or lowers, every "no" is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import effc
from effc.compiler import plan_model
from effc.diagnostics import EffcError, KernelError, PolicyError
from effc.ir.journal import Journal
from effc.pipeline import rewrite
from effc.spec.legality import lookup
from effc.spec.legality_table import FEATURES

ASKED: dict[str, dict[str, Any]] = {
    "quantize:rtn": {"quantize": [{"where": "linear", "method": "rtn", "activations": "source"}]},
    "quantize:rtn activations=int8": {
        "quantize": [{"where": "linear and layer == 1", "method": "rtn", "activations": "int8"}]
    },
    "store:int8": {"kv": [{"where": "attention", "store": {"method": "int8"}}]},
    "device:cpu": {"target": {"device": "cpu"}},
    "device:cuda": {"target": {"device": "cuda"}},
}

PAIRS = [
    pair
    for pair in itertools.combinations_with_replacement(FEATURES, 2)
    if not all(name.startswith("device:") for name in pair)
]
"""Pairs of features; two targets are no pair."""


def policy_for(first: str, second: str, **target: Any) -> dict[str, Any]:
    """A policy that asks for both."""
    spec: dict[str, Any] = {"version": 1, "target": dict(target)}
    for asked in dict.fromkeys((first, second)):
        for table, value in ASKED[asked].items():
            if isinstance(value, list):
                spec.setdefault(table, []).extend(value)
            else:
                spec[table] |= value
    return spec


def test_every_feature_can_be_asked_for() -> None:
    assert set(ASKED) == set(FEATURES)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_pair_does_what_the_table_says(first: str, second: str, tiny_llama: Path) -> None:
    spec, pair = policy_for(first, second), lookup(first, second)
    if not pair.legal:
        with pytest.raises(PolicyError) as caught:
            plan_model(tiny_llama, spec)
        assert caught.value.code == "E0211" and pair.reason in caught.value.message
    elif "device:cuda" in (first, second):
        lower(tiny_llama, spec)
    else:
        tokens = effc.optimize(tiny_llama, spec).generate(
            torch.tensor([[5, 6, 7]]), max_new_tokens=4
        )
        assert tokens.shape == (1, 7)


def lower(folder: Path, spec: dict[str, Any]) -> None:
    """Choose kernels for a device that need not be here."""
    planned = plan_model(folder, spec)
    rewrite(planned.program.copy(), planned.policy, planned.plan, Journal())


@pytest.mark.parametrize("bits", (8, 4, 3, 2))
@pytest.mark.parametrize("activations", ("source", "int8", None))
@pytest.mark.parametrize("symmetric", (True, False))
def test_lowering_never_refuses_what_the_plan_accepted(
    bits: int, activations: str | None, symmetric: bool, tiny_llama: Path
) -> None:
    rule = {"where": "linear or embedding", "method": "rtn", "bits": bits, "symmetric": symmetric}
    rule |= {"activations": activations} if activations else {}
    spec: dict[str, Any] = {"version": 1, "target": {"device": "cuda"}, "quantize": [rule]}
    try:
        planned = plan_model(tiny_llama, spec)
        refused = None
    except EffcError as error:
        refused = error.code
    assert refused == ("E0211" if activations == "int8" else None)
    if refused is None:
        rewrite(planned.program.copy(), planned.policy, planned.plan, Journal())
        return
    spec["target"]["allow_reference"] = True
    lower(tiny_llama, spec)


def test_lowering_would_have_refused_it_too(tiny_llama: Path) -> None:
    """The "no" of the table is the kernel's own."""
    spec = policy_for("quantize:rtn activations=int8", "device:cuda", allow_reference=True)
    planned = plan_model(tiny_llama, spec)
    strict = plan_model(tiny_llama, policy_for("quantize:rtn", "device:cuda")).policy
    with pytest.raises(KernelError, match="activations = 'int8'"):
        rewrite(planned.program.copy(), strict, planned.plan, Journal())
