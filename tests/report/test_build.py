"""report.json: complete, exact, and ready for JSON."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from effc.compilation import Compilation
from effc.compiler import compile_model
from effc.ir.facts import facts_to_json
from effc.ir.manifest import encode
from effc.ir.program import Program
from effc.report.build import build_report, kernels, plain
from effc.runtime.executable import Executable
from effc.runtime.session import Session
from tests.programs import decoder, example_ids

PARTS = (
    *("version", "source", "family", "policy", "target", "bytes", "plan", "skipped", "passes"),
    *("near_misses", "kernels", "cache", "sites", "prediction", "prediction_error", "quality"),
    *("reverted", "notes", "environment"),
)


def test_the_parts_of_version_2(written: dict[str, Any]) -> None:
    assert tuple(written) == PARTS
    assert written["version"] == 2
    assert written["target"] == {"device": "cpu", "context": 1024, "batch": 1}
    assert set(written["plan"]) == {"steps", "rules", "notes"}
    assert json.loads(encode(written)) == written


def test_bytes_of_weights_are_those_of_the_tensors(
    compiled: Compilation, written: dict[str, Any]
) -> None:
    weights = compiled.program.weights
    held = sum(weights[name].load().nbytes for name in compiled.program.read_weights())
    sizes = written["bytes"]
    assert sizes["weights_after"] == held
    assert sizes["ratio"] == sizes["weights_before"] / held


def allocated(program: Program, context: int) -> int:
    """Bytes that a session takes for one sequence."""
    return Session(Executable(program), 1, context, "cpu").store.bytes()["device"]


def test_bytes_of_the_cache_are_those_that_a_session_allocates(
    compiled: Compilation, written: dict[str, Any]
) -> None:
    layers, kv_heads, width = 4, 2, 64
    per_token = 2 * layers * kv_heads * width * 4
    assert written["bytes"]["cache_per_token"] == per_token
    assert written["bytes"]["cache_at_context"] == 1024 * per_token
    assert allocated(compiled.program, 1024) == 1024 * per_token


def test_a_window_bounds_the_cache() -> None:
    """Two layers, of which one keeps only the pages of its window and of what a call adds."""
    policy = {"version": 1, "target": {"context": 2048}}
    done = compile_model(decoder(window=40), policy, example_inputs=example_ids())
    sizes = done.report["bytes"]
    assert sizes["cache_at_context"] == allocated(done.program, 2048)
    assert sizes["cache_at_context"] < 0.75 * 2048 * sizes["cache_per_token"]


def test_a_batch_multiplies_the_cache(compiled: Compilation, written: dict[str, Any]) -> None:
    done = copy.copy(compiled)
    done.policy = replace(done.policy, target=replace(done.policy.target, batch=3))
    report = build_report(done)
    assert report["target"]["batch"] == 3
    assert report["bytes"]["cache_at_context"] == 3 * written["bytes"]["cache_at_context"]


def test_kernels_are_counted_as_in_the_manifest(compiled: Compilation) -> None:
    counted: dict[str, dict[str, dict[str, int]]] = {name: {} for name in compiled.program.stages}
    for entry in kernels(compiled.program):
        counted[entry["stage"]].setdefault(entry["operator"], {})[entry["kernel"]] = entry["calls"]
    assert counted == facts_to_json(compiled.program)["kernels"]


def test_every_kernel_comes_with_its_reason(written: dict[str, Any]) -> None:
    reasons = {reason for entry in written["kernels"] for reason in entry["reasons"]}
    assert reasons == {"no other kernel is registered for cpu"}


def test_measured_times_are_compared_with_predicted_ones(written: dict[str, Any]) -> None:
    errors = {entry["what"]: entry for entry in written["prediction_error"]}
    seconds = {"prefill_seconds", "decode_seconds"}
    assert set(errors) == {"weights_after", "cache_per_token", "cache_at_context"} | seconds
    for stage, found in written["quality"]["time"].items():
        assert errors[f"{stage}_seconds"]["measured"] == found["rewritten_s"]
    for entry in errors.values():
        assert entry["error"] == entry["predicted"] / entry["measured"] - 1


def test_what_was_not_measured_is_null(compiled: Compilation) -> None:
    done = copy.copy(compiled)
    done.quality, done.reverted = None, []
    report = build_report(done)
    assert report["quality"] is None
    assert "decode_seconds" not in {entry["what"] for entry in report["prediction_error"]}


def test_rules_stand_with_their_choices_and_places(written: dict[str, Any]) -> None:
    (rule,) = written["plan"]["rules"]
    assert rule["where"] == "linear or embedding"
    assert rule["choices"] == {"quantize": {"method": "rtn", "options": {"bits": 4, "group": 32}}}
    assert "demo.toml:9:" in rule["place"]
    assert rule["matched"] == rule["applied"] == len(written["plan"]["steps"]) == 30


@dataclass
class Point:
    x: object


def test_plain_data() -> None:
    given = {
        1: (Point(math.inf), Point(-math.inf)),
        "nan": math.nan,
        "table": MappingProxyType({"dtype": torch.float32}),
        "kept": [None, True, 0, -1.5, "text"],
    }
    assert plain(given) == {
        "1": [{"x": "inf"}, {"x": "-inf"}],
        "nan": "nan",
        "table": {"dtype": "torch.float32"},
        "kept": [None, True, 0, -1.5, "text"],
    }
