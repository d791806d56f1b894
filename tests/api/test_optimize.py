"""`optimize` and `load`: what users call, on a tiny Llama with a tied embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import effc
from effc.diagnostics import (
    ArtifactError,
    ExitCode,
    ExportError,
    GenerationError,
    ModelError,
    NoMatchError,
    PolicyError,
)
from effc.inspection import inspect_model
from effc.ir.pattern import op_name
from effc.ir.printer import print_program
from effc.kernels.packing.group_affine import GroupAffine
from effc.passes.registry import method_infos
from effc.spec.parse import load_policy
from tests.conftest import Golden
from tests.programs import decode_inputs, run, run_text, same_bits

IDS = torch.tensor([[5, 17, 3, 101, 9]])


def quantize(where: str, **options: Any) -> dict[str, Any]:
    return {"where": where, "method": "rtn", **options}


FOUR_BIT = {"version": 1, "quantize": [quantize("linear or embedding", bits=4, group=32)]}


@pytest.fixture(scope="module")
def four_bit(tiny_llama: Path) -> effc.CompiledModel:
    return effc.optimize(tiny_llama, FOUR_BIT)


@pytest.fixture(scope="module")
def original(tiny_llama: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def sites(tiny_llama: Path) -> list[dict[str, Any]]:
    return inspect_model(tiny_llama)["sites"]


def test_golden_decode_program(four_bit: effc.CompiledModel, golden: Golden) -> None:
    golden.check(print_program(four_bit.program))


def test_printed_decode_program_computes_the_same_bits(four_bit: effc.CompiledModel) -> None:
    inputs = decode_inputs(four_bit.program, IDS)
    expected = run(four_bit.program, "decode", inputs)
    assert same_bits(run_text(four_bit.program, "decode", inputs), expected)
    assert torch.equal(expected["logits"], four_bit(IDS).logits)


def test_logits_are_made_for_the_rows_asked_for(four_bit: effc.CompiledModel) -> None:
    """A quantized head stands behind the selection of rows, as any other."""
    head = [op_name(n) for _, n in four_bit.program.nodes() if op_name(n)][-3:]
    assert head == ["effc.select_rows.default", "effc.quantized_linear.default", "aten.add.Tensor"]


def test_policy_file_and_dict_mean_the_same(
    four_bit: effc.CompiledModel, tiny_llama: Path, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    rule = 'where = "linear or embedding"\nmethod = "rtn"\nbits = 4\ngroup = 32\n'
    path.write_text(f"version = 1\n[[quantize]]\n{rule}")
    fast = effc.optimize(tiny_llama, path)
    assert print_program(fast.program) == print_program(four_bit.program)
    assert load_policy(path, method_infos()) == load_policy(FOUR_BIT, method_infos())
    assert fast.report["policy"] == path.read_text()


def test_no_policy_changes_no_logit(tiny_llama: Path, original: Any) -> None:
    fast = effc.optimize(tiny_llama)
    expected = original(IDS).logits
    difference = (fast(IDS).logits - expected).abs().max() / expected.abs().max()
    assert difference < 1e-5
    assert fast.report["plan"]["steps"] == []
    assert fast.report["bytes"]["weights_before"] == fast.report["bytes"]["weights_after"]
    assert "nothing was measured: the policy has no [quality]" in fast.report["notes"]


@pytest.mark.parametrize(
    ("bits", "group", "symmetric"),
    ((4, 32, True), (4, 32, False), (8, 64, True), (4, "row", False)),
)
def test_bytes_equal_the_closed_form(
    bits: int, group: int | str, symmetric: bool, tiny_llama: Path, sites: list[dict[str, Any]]
) -> None:
    """b bits per weight in whole groups, fp16 scales, b bits per zero point in whole bytes."""
    options = {"bits": bits, "group": group, "symmetric": symmetric}
    fast = effc.optimize(tiny_llama, {"version": 1, "quantize": [quantize("all", **options)]})
    held: dict[str, int] = {}
    for name, weight in fast.program.weights.items():
        base, _, plane = name.rpartition(".")
        if plane in ("codes", "scale", "zero"):
            assert weight.load().nbytes == weight.nbytes
            held[base] = held.get(base, 0) + weight.nbytes
    served = [s for s in sites if s["kind"] in ("linear", "embedding")]
    assert set(held) == {site["weight"] for site in served}
    for site in served:
        rows, columns = site["shape"]
        g = columns if group == "row" else int(group)
        groups = -(-columns // g)
        per_row = groups * g * bits // 8 + 2 * groups
        per_row += 0 if symmetric else -(-groups * bits // 8)
        layout = GroupAffine(bits, None if group == "row" else g, symmetric)
        assert held[site["weight"]] == rows * per_row == layout.bytes((rows, columns)), site["name"]
    total = sum(w.nbytes for w in fast.program.weights.values())
    assert fast.report["bytes"]["weights_after"] == total
    acted = {step["site"] for step in fast.report["plan"]["steps"]}
    assert acted == {site["name"] for site in served}


def test_rule_on_the_head_alone_keeps_the_embedding(tiny_llama: Path, original: Any) -> None:
    spec = {"version": 1, "quantize": [quantize('name("lm_head")', activations="source")]}
    fast = effc.optimize(tiny_llama, spec)
    name = "model.embed_tokens.weight"
    kept = fast.program.weights[name]
    assert torch.equal(kept.load(), original.get_input_embeddings().weight)
    assert {n for n in fast.program.weights if n.startswith(name)} == {
        name,
        f"{name}.codes",
        f"{name}.scale",
    }
    note = (
        f"weight {name!r} is shared by model.embed_tokens, lm_head and comes apart: one copy each"
    )
    assert note in fast.report["notes"]
    assert fast.report["bytes"]["weights_after"] > fast.report["bytes"]["weights_before"]
    layout = GroupAffine(4, 32, True)
    weights = fast.program.weights
    planes = {p: weights[f"{name}.{p}"].load() for p in ("codes", "scale")}
    hidden = original.model(IDS).last_hidden_state
    expected = hidden @ layout.unpack(planes, kept.shape[-1]).T
    torch.testing.assert_close(fast(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_tied_weight_is_packed_once(four_bit: effc.CompiledModel) -> None:
    packed = [n for n in four_bit.program.weights if n.startswith("model.embed_tokens")]
    assert packed == ["model.embed_tokens.weight.codes", "model.embed_tokens.weight.scale"]
    assert not any("comes apart" in note for note in four_bit.report["notes"])


def test_overlapping_rules(tiny_llama: Path) -> None:
    rules = [quantize("linear"), quantize("linear and layer == 1", bits=8, group=64)]
    fast = effc.optimize(tiny_llama, {"version": 1, "quantize": rules})
    bits = {step["site"]: step["options"].get("bits", 4) for step in fast.report["plan"]["steps"]}
    assert {site for site, b in bits.items() if b == 8} == {s for s in bits if ".layers.1." in s}
    assert "[[quantize]] rule 2 overrides rule 1 at 7 sites" in fast.report["notes"]
    used = {
        n.args[5] for _, n in fast.program.nodes() if op_name(n) == "effc.quantized_linear.default"
    }
    assert used == {4, 8}


def test_rule_that_matches_nothing(tiny_llama: Path) -> None:
    with pytest.raises(NoMatchError, match="E0401.*nearest miss: ") as caught:
        effc.optimize(tiny_llama, {"version": 1, "quantize": [quantize("linear and layer == 9")]})
    assert caught.value.exit_code == ExitCode.NO_MATCH == 4


def test_report_is_plain_data(four_bit: effc.CompiledModel, tiny_llama: Path) -> None:
    report = four_bit.report
    assert json.loads(json.dumps(report)) == report
    assert report["family"] == "llama"
    assert [p["pass_name"] for p in report["passes"]][-2:] == ["bufferize", "select-kernels"]
    calls = {entry["operator"]: (entry["kernel"], entry["calls"]) for entry in report["kernels"]}
    assert calls["effc.attend.default"] == ("reference", 2)
    assert len(report["cache"]) == 2
    assert report["cache"][0]["kv_heads"] == 2
    assert {entry["reason"] for entry in report["skipped"]} <= {
        "quantize does not serve sites of kind norm",
        "quantize does not serve sites of kind attention",
    }


def test_saved_model_is_the_same(four_bit: effc.CompiledModel, tmp_path: Path) -> None:
    four_bit.save(tmp_path / "out")
    again = effc.load(tmp_path / "out")
    assert again.report == four_bit.report
    assert torch.equal(again(IDS).logits, four_bit(IDS).logits)
    generated = [m.generate(IDS, max_new_tokens=12) for m in (again, four_bit)]
    assert torch.equal(*generated)
    sampled = [m.generate(IDS, max_new_tokens=8, do_sample=True, seed=3) for m in (again, four_bit)]
    assert torch.equal(*sampled)
    again.save(tmp_path / "again")
    names = sorted(p.name for p in (tmp_path / "out").rglob("*"))
    assert sorted(p.name for p in (tmp_path / "again").rglob("*")) == names
    assert effc.load(tmp_path / "again").report == four_bit.report


def test_nothing_is_overwritten_without_force(four_bit: effc.CompiledModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    four_bit.save(out)
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ArtifactError, match="E0102"):
        four_bit.save(out)
    assert (out / "mine.txt").read_text() == "keep"
    (out / "mine.txt").unlink()
    four_bit.save(out, force=True)
    assert torch.equal(effc.load(out)(IDS).logits, four_bit(IDS).logits)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_target_dtype(dtype: str, tiny_llama: Path) -> None:
    fast = effc.optimize(tiny_llama, {"version": 1, "target": {"dtype": dtype}})
    wanted = getattr(torch, dtype)
    assert fast(IDS).logits.dtype == wanted
    assert {w.dtype for n, w in fast.program.weights.items() if n.endswith("weight")} == {wanted}
    assert fast.report["bytes"]["weights_after"] == sum(
        w.nbytes for w in fast.program.weights.values()
    )


def test_target_dtype_of_a_module_must_be_its_own() -> None:
    module, example = torch.nn.Linear(2, 2), (torch.ones(2, 2),)
    with pytest.raises(ModelError, match="E0304.*target.dtype is torch.float16"):
        effc.optimize(
            module, {"version": 1, "target": {"dtype": "float16"}}, example_inputs=example
        )


@pytest.mark.parametrize(("asked", "used", "noted"), ((8, 8, False), (999, 256, True)))
def test_target_context(asked: int, used: int, noted: bool, tiny_llama: Path) -> None:
    fast = effc.optimize(tiny_llama, {"version": 1, "target": {"context": asked}})
    assert fast.program.info.context == used
    note = "target.context = 999 exceeds the model's 256 tokens; using 256"
    assert (note in fast.report["notes"]) == noted
    if used == 8:
        with pytest.raises(GenerationError, match="E0701"):
            fast.generate(torch.ones(1, 9, dtype=torch.long))
        assert fast.generate(IDS, max_new_tokens=20).shape == (1, 8)


def test_export_is_refused(four_bit: effc.CompiledModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="E0801.*there is no format 'tflite'"):
        four_bit.export(tmp_path / "m.tflite", format="tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "code", "text"),
    (
        ("nowhere/at/all", "E0301", "the model does not exist"),
        ("model.onnx", "E0301", "the model does not exist"),
        (3, "E0301", "a model is a folder, an .onnx file or an nn.Module, found int"),
    ),
)
def test_what_is_no_model(model: Any, code: str, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        effc.optimize(model)
    assert (caught.value.code, caught.value.message) == (code, text)


def test_what_is_no_policy(tiny_llama: Path) -> None:
    with pytest.raises(PolicyError, match="E0205.*found list"):
        effc.optimize(tiny_llama, [])
    with pytest.raises(PolicyError, match="E0202"):
        effc.optimize(tiny_llama, {"version": 1, "quantise": []})


def test_model_in_memory_is_left_as_it_was(tiny_llama: Path, four_bit: effc.CompiledModel) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="sdpa")
    model.train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    fast = effc.optimize(model, FOUR_BIT)
    assert model.config._attn_implementation == "sdpa"
    assert all(part.training for part in model.modules())
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == pointers
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for part in model.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks
    assert torch.equal(fast(IDS).logits, four_bit(IDS).logits)


@pytest.mark.parametrize("call", ("()", "(ids, ids, ids)", "(inputs=ids)", "(ids, positions=ids)"))
def test_wrong_call_of_a_language_model(call: str, four_bit: effc.CompiledModel) -> None:
    message = "E0703.*the model is called with input_ids, attention_mask; found"
    with pytest.raises(GenerationError, match=message):
        eval(f"fast{call}", {"fast": four_bit, "ids": IDS})


def test_call_with_padding_equals_the_call_without(four_bit: effc.CompiledModel) -> None:
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), IDS], 1)
    mask = (torch.arange(7) >= 2).long()[None]
    assert torch.equal(four_bit(padded, mask).logits[:, 2:], four_bit(input_ids=IDS).logits)
