"""Predicted bytes are the bytes that are written and allocated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from effc.cost.machine import DATA_SHEETS, machine_of
from effc.cost.prediction import check_memory, compare_with_measured, on_machine, predict
from effc.diagnostics import PolicyError
from effc.export.package import write_artifact
from effc.ir.program import Program
from effc.runtime.kv_store import PagedStore
from effc.runtime.session import prefill_chunk
from effc.spec.quantity import Quantity
from effc.spec.schema import Policy
from tests.cost.models import lowered, planned, policy, quantize, store
from tests.e2e.families import FAMILIES, Family

REFERENCE_MODEL = Path(__file__).parents[2] / "examples" / "zoo" / "lm" / "checkpoint"

POLICIES: dict[str, Policy] = {
    "nothing": policy(),
    "four bits": policy(quantize("linear or embedding", bits=4, group=32)),
    "mixed": policy(
        quantize("linear", bits=8, group="row", symmetric=False),
        quantize("layer >= 1 and linear", bits=4, group=64),
        store("layer >= 1"),
    ),
    "untied": policy(quantize("embedding", bits=8), quantize("name('*lm_head')", bits=4)),
    "half": policy(quantize("linear", bits=4), store(), dtype="float16"),
}


def written_bytes(program: Program, folder: Path) -> int:
    """Bytes of the tensors in the artifact."""
    write_artifact(program, folder, policy_text=None, lock={}, report={}, force=False)
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize("name", POLICIES)
def test_weights_of_the_reference_model(name: str, tmp_path: Path) -> None:
    chosen = POLICIES[name]
    program, sites, plan = planned(REFERENCE_MODEL, chosen)
    predicted = predict(program, sites, plan, chosen)["bytes"]
    assert predicted["weights_after"] == written_bytes(
        lowered(program, chosen, plan), tmp_path / "out"
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_weights_of_every_family(family: Family, tmp_path: Path) -> None:
    """Ties, untied copies, experts in both layouts, biases."""
    family.save(tmp_path / "model")
    chosen = policy(
        quantize("linear or embedding", bits=4, group=32),
        quantize("layer == 1 and linear", bits=8, symmetric=False),
        quantize("embedding", bits=8),
    )
    program, sites, plan = planned(tmp_path / "model", chosen)
    predicted = predict(program, sites, plan, chosen)["bytes"]
    assert predicted["weights_before"] == sum(
        program.weights[name].nbytes for name in program.read_weights()
    )
    assert predicted["weights_after"] == written_bytes(
        lowered(program, chosen, plan), tmp_path / "out"
    )


@pytest.mark.parametrize("name", ("Llama", "Mistral", "Gemma3Text"))
def test_cache_is_what_the_store_allocates(name: str, tmp_path: Path) -> None:
    next(f for f in FAMILIES if f.name == name).save(tmp_path)
    chosen = policy(store("layer >= 1"))
    program, sites, plan = planned(tmp_path, chosen)
    final = lowered(program, chosen, plan)
    for batch, context in ((1, 33), (3, 64), (1, 250), (2, 256)):
        asked = replace(chosen, target=replace(chosen.target, batch=batch))
        prediction = predict(program, sites, plan, asked, context=context)
        step = min(context, prefill_chunk(final))
        pages = PagedStore(final, batch, capacity=context, step=step)
        assert prediction["bytes"]["cache_at_context"] == pages.bytes()["device"]
        by_site = [s["bytes_after"] for s in prediction["sites"] if s["kind"] == "attention"]
        assert sum(by_site) == pages.bytes()["device"]


def test_metadata_of_a_full_cache(tmp_path: Path) -> None:
    Family("Llama").save(tmp_path)
    chosen = policy(context=96)
    program, sites, plan = planned(tmp_path, chosen)
    pages = PagedStore(lowered(program, chosen, plan), 1, capacity=96, step=96)
    pages.reserve([96])
    predicted = predict(program, sites, plan, chosen)["bytes"]
    assert predicted["cache_metadata"] == pages.bytes()["metadata"]


def prediction_of(tmp_path: Path, **target: Any) -> tuple[dict[str, Any], Policy]:
    """The prediction for a tiny Llama in four bits."""
    Family("Llama", {"tie_word_embeddings": True}).save(tmp_path)
    chosen = policy(quantize("linear or embedding", bits=4), **target)
    program, sites, plan = planned(tmp_path, chosen)
    return predict(program, sites, plan, chosen), chosen


def test_a_prediction_is_json_with_these_fields(tmp_path: Path) -> None:
    prediction, _ = prediction_of(tmp_path)
    assert json.loads(json.dumps(prediction)) == prediction
    assert set(prediction["machine"]) == {"name", "peak_flops", "bandwidth", "memory", "source"}
    assert [stage["name"] for stage in prediction["stages"]] == ["prefill", "decode"]
    assert [stage["tokens"] for stage in prediction["stages"]] == [256, 1]
    for stage in prediction["stages"]:
        assert set(stage) == {
            "name", "tokens", "flops", "bytes", "intensity", "ridge", "regime", "seconds",
        }  # fmt: skip
    site = next(s for s in prediction["sites"] if s["name"].endswith("up_proj"))
    assert site["method"] == "rtn 4 bits"
    assert site["bytes_before"] == 64 * 96 * 4 and site["bytes_after"] == 64 * 96 * 9 // 16
    assert prediction["notes"] == []


def test_seconds_are_under_the_roof(tmp_path: Path) -> None:
    prediction, _ = prediction_of(tmp_path)
    machine = DATA_SHEETS["A100-SXM4-80GB"]
    for stage in on_machine(prediction, machine)["stages"]:
        moved = sum(stage["bytes"].values())
        assert stage["seconds"] == max(
            stage["flops"] / machine.peak_flops, moved / machine.bandwidth
        )
        assert (stage["regime"] == "memory") == (moved / machine.bandwidth == stage["seconds"])
    assert prediction["machine"]["name"] == machine_of("cpu").name


def test_peak_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    count = prediction_of(tmp_path)[0]["bytes"]
    parts = ("weights_after", "cache_at_context", "cache_metadata", "activations")
    assert count["peak"] == sum(count[part] for part in parts)


def kibibytes(count: int) -> Quantity:
    """An exact number of bytes in the language of policies."""
    return Quantity.parse(f"{count / 1024:.8f} KiB")


def test_memory_that_suffices_is_accepted(tmp_path: Path) -> None:
    prediction, _ = prediction_of(tmp_path)
    peak = prediction["bytes"]["peak"]
    check_memory(prediction, policy(memory=kibibytes(peak)))
    with pytest.raises(PolicyError) as caught:
        check_memory(prediction, policy(memory=kibibytes(peak - 4)))
    assert caught.value.code == "E0411" and caught.value.exit_code == 2


def test_memory_that_does_not_suffice_is_refused_with_the_parts(
    tmp_path: Path, golden: Any
) -> None:
    prediction, _ = prediction_of(tmp_path)
    texts = []
    for limit in ("40 KiB", "500 KiB"):
        with pytest.raises(PolicyError) as caught:
            check_memory(prediction, policy(memory=Quantity.parse(limit)))
        texts.append(caught.value.render())
    golden.check("\n\n".join(texts))


def test_comparison_with_what_was_measured(tmp_path: Path) -> None:
    prediction, _ = prediction_of(tmp_path)
    after, seconds = prediction["bytes"]["weights_after"], prediction["stages"][1]["seconds"]
    measured = {"weights_after": after, "decode_seconds": 2 * seconds, "peak": 0, "soul": 21}
    assert compare_with_measured(prediction, measured) == [
        {"what": "weights_after", "predicted": after, "measured": after, "error": 0.0},
        {"what": "decode_seconds", "predicted": seconds, "measured": 2 * seconds, "error": -0.5},
        {"what": "peak", "predicted": prediction["bytes"]["peak"], "measured": 0, "error": None},
    ]


def test_a_module_has_one_stage_and_no_cache() -> None:
    chosen = policy(quantize("linear", bits=8))
    module = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    program, sites, plan = planned(module.eval(), chosen, example_inputs=(torch.randn(2, 64),))
    prediction = predict(program, sites, plan, chosen)
    assert [stage["name"] for stage in prediction["stages"]] == ["forward"]
    assert prediction["stages"][0]["flops"] == 2 * (64 * 32 + 32 * 8) + 32
    assert prediction["bytes"]["cache_at_context"] == 0


def test_no_weight_is_read(tmp_path: Path) -> None:
    Family("Llama").save(tmp_path)
    chosen = POLICIES["four bits"]
    program, sites, plan = planned(tmp_path, chosen)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert predict(program, sites, plan, chosen)["bytes"]["weights_after"] > 0
