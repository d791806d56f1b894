"""The whole report of a decoder, and the evidence that methods acted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from effc.diagnostics import TargetError
from effc.evaluate.fired import MethodUse, fired
from effc.evaluate.measure import measure
from effc.evaluate.subject import Subject
from effc.evaluate.texts import EvaluationText, random_text
from effc.ir.program import Program
from effc.ir.sites import find_sites
from effc.spec.plan import Plan, Step
from effc.spec.schema import QualitySpec
from tests.evaluate.models import altered, canonical_decoder, linears, lowered, quantized


@pytest.fixture(scope="module")
def canonical() -> Program:
    return canonical_decoder()


@pytest.fixture(scope="module")
def original(canonical: Program) -> Subject:
    return Subject(lowered(canonical))


@pytest.fixture(scope="module")
def text(canonical: Program) -> EvaluationText:
    return random_text(canonical.info, 160)


def test_a_report_has_every_part(
    canonical: Program, original: Subject, text: EvaluationText
) -> None:
    plan = quantized(linears(canonical), bits=8, group=16)
    quality = QualitySpec(max_kl=1.0, max_perplexity_ratio=2.0, min_top1=0.5, max_time_ratio=1e6)
    found = measure(
        original,
        lowered(canonical, plan),
        text,
        quality=quality,
        methods=MethodUse.of_steps(plan.steps),
        timing=True,
        rounds=2,
    )
    assert set(found) == {
        "text", "kl", "perplexity", "top1", "greedy", "layers", "time", "bytes", "counters",
        "fired", "gates", "notes", "seconds", "timed",
    }  # fmt: skip
    context = canonical.info.context or 0
    assert found["timed"] == {"prompt_tokens": context - 32, "new_tokens": 32}
    assert found["text"] == {"label": text.label, "rows": 3, "tokens": 144}
    assert 0 < found["kl"]["mean"] < 0.1
    assert found["kl"]["mean"] <= found["kl"]["max"]
    assert set(found["time"]) == {"prefill", "decode"}
    assert [gate["held"] for gate in found["gates"]] == [True] * 4
    assert found["gates"][3]["value"] == found["time"]["decode"]["ratio"]
    assert found["bytes"]["rewritten"]["weights"] < found["bytes"]["original"]["weights"]
    assert found["bytes"]["rewritten"]["cache"] == found["bytes"]["original"]["cache"] > 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_model_equal_to_the_original_costs_nothing(
    canonical: Program, original: Subject, text: EvaluationText
) -> None:
    found = measure(original, lowered(canonical), text)
    assert found["kl"] == {"mean": 0.0, "stderr": 0.0, "max": 0.0}
    assert found["perplexity"]["ratio"] == 1.0
    assert found["top1"] == {"mean": 1.0, "stderr": 0.0}
    assert found["greedy"]["identical"] == found["greedy"]["prompts"] == 3
    assert found["greedy"]["mean_length"] == found["greedy"]["new_tokens"]
    assert found["time"] is None
    assert found["gates"] == found["fired"] == []


def test_a_ruined_model_breaks_its_gates_instead_of_the_measurement(
    canonical: Program, original: Subject, text: EvaluationText
) -> None:
    nothing = altered(canonical, lambda _, v: v * float("nan") if v.is_floating_point() else v)
    quality = QualitySpec(max_kl=1.0, max_perplexity_ratio=2.0, min_top1=0.0)
    found = measure(original, lowered(nothing), text, quality=quality)
    assert [(gate["value"], gate["held"]) for gate in found["gates"]] == [
        (None, False),
        (None, False),
        (0.0, True),
    ]
    assert found["greedy"]["mean_length"] == 0
    json.dumps(found, allow_nan=False)


def steps(canonical: Program, kind: str, aspect: str, method: str) -> list[Step]:
    table = "quantize" if aspect == "quantize" else "kv"
    sites = [site for site in find_sites(canonical) if site.kind == kind]
    return [Step(aspect, method, {}, site, table, 0) for site in sites]


def test_packed_pages_are_evidence(
    canonical: Program, original: Subject, text: EvaluationText
) -> None:
    planned = steps(canonical, "attention", "store", "int8")
    methods = MethodUse.of_steps(planned)
    found = measure(original, lowered(canonical, Plan(tuple(planned))), text, methods=methods)
    assert found["fired"][0]["ok"], found["fired"]
    # int8 with an fp16 scale per head of width 4, against fp32.
    cache = {name: sizes["cache"] for name, sizes in found["bytes"].items()}
    assert cache["rewritten"] * 16 == cache["original"] * 6
    assert str(cache["original"]) in found["fired"][0]["evidence"]


@pytest.mark.parametrize("aspect", ("quantize", "store", "kv", "draft"))
def test_a_method_that_did_nothing_is_found_out(
    canonical: Program, original: Subject, text: EvaluationText, aspect: str
) -> None:
    """The plan says one thing, the program is the original."""
    kind = "linear" if aspect == "quantize" else "attention"
    methods = MethodUse.of_steps(steps(canonical, kind, aspect, "m"))
    found = measure(original, lowered(canonical), text, methods=methods)
    assert [entry["ok"] for entry in found["fired"]] == [False]
    assert found["fired"][0]["method"] == f"{aspect} m"


def test_one_site_that_was_forgotten_is_found_out(canonical: Program) -> None:
    sites = linears(canonical)
    program = lowered(canonical, quantized(sites[1:], bits=8, group=16))
    calls = {"calls": {"decode": 3}}
    (all_sites,) = MethodUse.of_steps(quantized(sites).steps)
    done = replace(all_sites, sites=all_sites.sites[1:])
    assert [entry["ok"] for entry in fired(program, [done], calls)] == [True]
    assert [entry["ok"] for entry in fired(program, [all_sites], calls)] == [False]


def test_a_stage_that_never_ran_is_no_evidence(canonical: Program) -> None:
    plan = quantized(linears(canonical), bits=8, group=16)
    (entry,) = fired(lowered(canonical, plan), MethodUse.of_steps(plan.steps), {"calls": {}})
    assert not entry["ok"]


def test_weights_are_computed_once(canonical: Program, text: EvaluationText) -> None:
    """Packing is dear; taps, reading and answering share the packed weights."""
    loads: list[str] = []
    plan = quantized(linears(canonical), bits=8, group=16)
    program = lowered(canonical, plan)
    for name, weight in list(program.weights.items()):

        def load(name: str = name, old: object = weight.load) -> object:
            loads.append(name)
            return old()  # type: ignore[operator]

        program.weights.set(name, replace(weight, load=load))
    measure(program, program, text)
    assert max(loads.count(name) for name in loads) == 2


def test_a_model_for_a_device_that_is_not_here_is_refused(canonical: Program) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    program = lowered(canonical)
    program.device = "cuda"
    with pytest.raises(TargetError) as error:
        Subject(program)
    assert error.value.code == "E0502"
