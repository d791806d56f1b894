"""A rule that ruins the reference model is caught, named and undone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from effc.compiler import compile_model
from effc.diagnostics import GateError

CHECKPOINT = Path(__file__).parents[2] / "examples" / "zoo" / "lm" / "checkpoint"
MAX_KL = 0.05

POLICY = """version = 1

[target]
dtype   = "float32"
context = 128

[quality]
tokens = 256
max_kl = {max_kl}

[[quantize]]
where  = "linear or embedding"
method = "rtn"
bits   = 8

[[quantize]]
where  = "linear"
method = "rtn"
bits   = 2
gate   = "{gate}"
"""


def policy(folder: Path, gate: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(POLICY.format(gate=gate, max_kl=MAX_KL))
    return path


def alone(where: str, bits: int) -> float:
    """The KL of one rule by itself, compiled separately."""
    spec: Mapping[str, Any] = {
        "version": 1,
        "target": {"dtype": "float32", "context": 128},
        "quality": {"tokens": 256},
        "quantize": [{"where": where, "method": "rtn", "bits": bits}],
    }
    quality = compile_model(CHECKPOINT, spec).quality
    assert quality is not None
    return quality["kl"]["mean"]


@pytest.mark.slow
def test_two_bits_are_caught_and_the_guilty_step_is_named(tmp_path: Path) -> None:
    path = policy(tmp_path, "fail")
    with pytest.raises(GateError) as error:
        compile_model(CHECKPOINT, path)
    message = error.value.message
    assert error.value.code == "E0408"
    assert str(error.value.where).startswith(f"{path}:16:")
    assert "max_kl" in message and "broken" in message
    assert "[[quantize]] rule 2 (rtn where linear)" in message
    assert "worst step is rtn at model.layers." in message
    assert 'gate = "revert"' in (error.value.help or "")


@pytest.mark.slow
def test_reverting_two_bits_leaves_a_model_within_the_gate(tmp_path: Path) -> None:
    done = compile_model(CHECKPOINT, policy(tmp_path, "revert"))
    assert done.quality is not None
    assert done.quality["gates"][0]["held"]
    assert 0 < done.quality["kl"]["mean"] <= MAX_KL
    # What is left is the first rule, which the second had overridden: 8 bits everywhere.
    assert {step.rule for step in done.plan.steps} == {0}
    assert {step.options["bits"] for step in done.plan.steps} == {8}
    (entry,) = done.reverted
    before, after = (entry["measured"][when][0]["value"] for when in ("before", "after"))
    assert before > 10 * MAX_KL > 10 * after
    worst = entry["measured"]["worst_step"]
    assert worst["alone"] == pytest.approx(alone(f'name("{worst["site"]}")', 2), rel=1e-6)
    assert worst["rule_alone"] == pytest.approx(alone("linear", 2), rel=1e-6)
    assert worst["share"] == pytest.approx(worst["alone"] / worst["rule_alone"])
