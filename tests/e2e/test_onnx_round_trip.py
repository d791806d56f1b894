"""Checkpoint -> effc -> ONNX -> onnxruntime, and from that file the same way again.

The oracle is the engine, which other tests hold against transformers; onnxruntime runs the files
with nothing but a loop that hands the cache from one call to the next.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import effc
from examples.onnx_exports.coverage import with_exact_products
from examples.onnx_exports.loops import Decoder
from tests.e2e.families import FAMILIES, VOCABULARY, Family

DOCUMENT = Path(__file__).parents[2] / "docs" / "onnx.md"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "onnx"
RULE = {"where": "linear or embedding", "method": "rtn", "bits": 4, "activations": "source"}
FOUR_BIT = {"quantize": [RULE]}
# The prompt and the answer together are longer than the windows of 24 tokens.
PROMPT, NEW_TOKENS = 20, 8
BATCH = 2


@dataclass(frozen=True)
class Answer:
    """What a model says to the prompts.

    Attributes:
        logits: [B, T, V] of the prompts.
        tokens: [B, new] that follow.
    """

    logits: np.ndarray
    tokens: np.ndarray


def prompts() -> np.ndarray:
    """Random ids [B, T] that avoid the special ones."""
    return np.random.default_rng(4).integers(5, VOCABULARY, (BATCH, PROMPT))


def by_engine(compiled: effc.CompiledModel) -> Answer:
    """The answer of effc's own engine."""
    ids = torch.from_numpy(prompts())
    tokens = compiled.generate(ids, max_new_tokens=NEW_TOKENS, eos_token_id=[])[:, PROMPT:]
    return Answer(compiled(ids).logits.float().numpy(), tokens.numpy())


def by_onnxruntime(file: Path) -> Answer:
    """The answer of stock onnxruntime."""
    decoder = Decoder(file)
    return Answer(decoder.step(prompts())[0], decoder.generate(prompts(), NEW_TOKENS))


def assert_same(found: Answer, expected: Answer) -> None:
    """Logits up to rounding, the same tokens."""
    scale = np.abs(expected.logits).max()
    assert np.abs(found.logits - expected.logits).max() < 1e-4 * scale
    assert found.tokens.tolist() == expected.tokens.tolist()


def exported(source: Any, policy: dict[str, Any] | None, file: Path) -> Answer:
    """Compile a model, write it as ONNX; the engine's answer, which onnxruntime must repeat."""
    compiled = effc.optimize(source, policy)
    compiled.export(file, "onnx")
    expected = by_engine(compiled)
    assert_same(by_onnxruntime(file), expected)
    return expected


def saved(family: Family, folder: Path) -> Path:
    """A checkpoint of as few layers as show everything: one of each kind."""
    kinds = ["sliding_attention", "full_attention"] if family.name.startswith("Gemma") else []
    depth = max(1, len(kinds))
    few = {
        "num_hidden_layers": depth,
        "n_layer": depth,
        **({"layer_types": kinds} if kinds else {}),
    }
    replace(family, options={**family.options, **few}).save(folder)
    return folder


@pytest.mark.parametrize("policy", (None, FOUR_BIT), ids=("plain", "4 bits"))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_onnxruntime_gives_the_tokens_of_the_engine(
    family: Family, policy: dict[str, Any] | None, tmp_path: Path
) -> None:
    """And effc's own engine gives them again after reading the file."""
    file = tmp_path / "model.onnx"
    expected = exported(saved(family, tmp_path / "checkpoint"), policy, file)
    assert_same(by_engine(effc.optimize(file)), expected)


@pytest.mark.parametrize("policy", (None, FOUR_BIT), ids=("plain", "4 bits"))
def test_second_generation_is_the_first(policy: dict[str, Any] | None, tmp_path: Path) -> None:
    """ONNX -> effc -> ONNX: nothing is lost on a second way round."""
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    expected = exported(saved(FAMILIES[0], tmp_path / "checkpoint"), policy, first)
    assert_same(exported(first, None, second), expected)


@pytest.mark.parametrize("name", ("genai_llama_fp32", "genai_qwen2_int4", "optimum_llama"))
def test_files_of_other_tools_survive_the_way_through(name: str, tmp_path: Path) -> None:
    """The oracle is onnxruntime on their file, with products in fp32."""
    theirs = with_exact_products(FIXTURES / name / "model.onnx", tmp_path)
    assert_same(exported(theirs, None, tmp_path / "ours.onnx"), by_onnxruntime(theirs))


def test_loop_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"(?:^    .*\n)+", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    (loop,) = [block for block in blocks if block.startswith("    import numpy")]
    compiled = effc.optimize(saved(FAMILIES[0], tmp_path / "checkpoint"))
    compiled.export(tmp_path / "small.onnx", "onnx")
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(loop), {})
    ids = torch.tensor([[17, 42, 99]])
    expected = compiled.generate(ids, max_new_tokens=16, eos_token_id=[])[:, 3:]
    assert capsys.readouterr().out.strip() == str(expected.numpy())


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """The answers are no repetition, and another model gives others."""
    folders = [saved(replace(FAMILIES[0], seed=seed), tmp_path / str(seed)) for seed in (0, 1)]
    answers = [by_engine(effc.optimize(folder)) for folder in folders]
    assert len(set(answers[0].tokens.ravel().tolist())) > 6
    with pytest.raises(AssertionError):
        assert_same(*answers)
