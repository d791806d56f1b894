"""The corpus of exported files: how it is made, run and reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.onnx_exports.coverage import Row, difference, from_json, to_json, with_exact_products
from examples.onnx_exports.loops import Decoder, cache_pairs, example_feeds, run
from examples.onnx_exports.models import BY_NAME, DECODER, ENCODER
from examples.onnx_exports.table import BEGIN, END, failures, replace_tables, tables
from examples.onnx_exports.torch_export import load
from examples.onnx_exports.worker import make

FIXTURES = Path(__file__).parents[1] / "fixtures" / "onnx"
DECODERS = sorted(
    file.parent.name
    for file in FIXTURES.glob("*/model.onnx")
    if not file.parent.name.endswith(("bert", "clip_vision"))
)
GOOD = Row("optimum", "llama", DECODER, imported=1e-6, logits=2e-6, tokens={"1": True, "2": True},
           sites={"linear": 15, "attention": 2, "norm": 5},
           expected={"linear": 15, "attention": 2, "norm": 5})  # fmt: skip


def prompts(vocabulary: int) -> np.ndarray:
    return np.random.default_rng(0).integers(5, vocabulary, (2, 10))


@pytest.mark.slow
@torch.no_grad()
def test_cache_loop_gives_the_tokens_of_transformers(tmp_path: Path) -> None:
    llama = BY_NAME["llama"]
    llama.save(tmp_path / "checkpoint")
    said = make("dynamo-cache", llama, tmp_path / "made", tmp_path / "checkpoint")
    assert said["ok"], said
    module = load(llama, tmp_path / "checkpoint")
    ids = prompts(256)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    given = torch.from_numpy(ids)
    expected = module.generate(given, attention_mask=torch.ones_like(given), **options)
    found = Decoder(tmp_path / "made" / "model.onnx").generate(ids, 8)
    assert found.tolist() == expected[:, 10:].tolist()


@pytest.mark.parametrize("name", DECODERS)
def test_cache_loop_gives_the_tokens_of_one_long_call(name: str) -> None:
    """Through windows that are shorter than the prompt, with operators that slide themselves."""
    decoder = Decoder(FIXTURES / name / "model.onnx")
    assert decoder.pairs
    vocabulary = decoder.step(prompts(16))[0].shape[-1]
    ids = prompts(vocabulary)
    answer = decoder.generate(ids, 8)
    logits, _ = decoder.step(np.concatenate([ids, answer], axis=1))
    assert logits[:, 9:-1].argmax(-1).tolist() == answer.tolist()
    assert len(set(answer.ravel())) > 2


def test_there_are_fixtures_of_both_exporters() -> None:
    assert len(DECODERS) == 7
    assert {name.partition("_")[0] for name in DECODERS} == {"optimum", "genai"}


def test_other_models_run_on_inputs_with_the_usual_names() -> None:
    size = {"tokens": 9, "vocabulary": 100, "image": 16, "seed": 0}
    for name, outputs in (("optimum_bert", 1), ("optimum_tiny_clip_vision", 2)):
        file = FIXTURES / name / "model.onnx"
        results = run(file, example_feeds(file, **size))
        assert len(results) == outputs
        assert all(np.isfinite(value).all() for value in results.values())


def test_exact_copy_differs_by_the_rounding_of_activations_only(tmp_path: Path) -> None:
    file = FIXTURES / "genai_qwen2_int4" / "model.onnx"
    exact = with_exact_products(file, tmp_path)
    assert exact.parent == tmp_path
    ids = prompts(256)
    wrong = difference(Decoder(exact).step(ids)[0], Decoder(file).step(ids)[0])
    assert 1e-4 < wrong < 0.1
    plain = FIXTURES / "genai_llama_fp32" / "model.onnx"
    assert with_exact_products(plain, tmp_path) == plain


def test_what_an_exporter_cannot_do_is_recorded(tmp_path: Path) -> None:
    said = make("genai-fp32", BY_NAME["vit"], tmp_path / "vit", tmp_path)
    assert not said["ok"]
    assert said["reason"] == "DoesNotApply: the builder makes decoders only"
    assert sorted(file.name for file in (tmp_path / "vit").iterdir()) == [
        "made.json", "traceback.txt"
    ]  # fmt: skip


def test_cache_without_a_present_is_refused() -> None:
    with pytest.raises(ValueError, match="2 past inputs, 1 present outputs"):
        cache_pairs(["past.0.key", "past.0.value"], ["present.0.key"])
    assert cache_pairs(["past_0", "ids"], ["logits", "present_0"]) == {"past_0": "present_0"}


@pytest.mark.parametrize(
    ("found", "expected"),
    (([1.0, 2.0], 0.5), ([2.0, 4.0], 0.0), ([float("nan"), 4.0], np.inf), ([2.0], np.inf)),
)
def test_difference_is_relative_to_the_largest_value(found: list[float], expected: float) -> None:
    assert difference(np.array([2.0, 4.0]), np.array(found)) == expected


def test_rows_survive_being_kept() -> None:
    assert from_json(to_json([GOOD])) == [GOOD]


def test_tables_go_between_the_markers(tmp_path: Path) -> None:
    rows = [
        GOOD,
        replace(GOOD, family="gpt2", tokens={"1": True, "2": False}),
        replace(GOOD, family="mixtral", made="ValueError: unsupported"),
        Row("optimum", "bert", ENCODER, imported=0.5),
    ]
    assert [row.good for row in rows] == [True, False, False, False]
    document = tmp_path / "onnx.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    replace_tables(document, rows)
    text = document.read_text(encoding="utf-8")
    assert text == f"before\n{BEGIN}\n\n{tables(rows)}\n{END}\nafter\n"
    assert "1 of 3 files as onnxruntime runs them" in text
    assert "| llama | 1e-06 | 2e-06 | yes, yes | 15, 2, 5 | yes |" in text
    assert "| gpt2 | 1e-06 | 2e-06 | yes, **no** |" in text
    assert "| mixtral | not exported: ValueError: unsupported |" in text
    assert "| bert | **5e-01** |" in text
    document.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the lines"):
        replace_tables(document, rows)


def test_failures_are_grouped_by_cause() -> None:
    error = "compile: ModelError: /a/b.onnx: error[E0302]: node '{}' of opset 17"
    rows = [
        GOOD,
        replace(GOOD, family="gpt2", error=error.format("x")),
        replace(GOOD, family="opt", error=error.format("y")),
        replace(GOOD, family="bloom", logits=0.1),
        replace(GOOD, family="phi", expected={"linear": 16}),
    ]
    text = failures(rows)
    assert text.startswith("# Failures: 2 of 5 files are good")
    assert "## 2 files: compile: ModelError: _ error[E_]: node _ of opset _" in text
    assert "## 1 files: logits differ" in text
    assert "## 1 files: sites differ" in text
