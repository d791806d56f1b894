"""Exported decoders, run by stock onnxruntime, generate what the engine generates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch

import effc
from tests.e2e.families import FAMILIES, Family
from tests.export.onnx_steps import Decoding, greedy

pytestmark = pytest.mark.slow

PROMPT, NEW = 21, 6

Build = Callable[[str, int], effc.CompiledModel]


def policy(bits: int) -> dict[str, Any]:
    """Everything in few bits, products exact, so that logits compare; 0 keeps all as it is."""
    rule = {"where": "linear or embedding", "method": "rtn", "bits": bits, "activations": "source"}
    return {"version": 1, "quantize": [rule] if bits else []}


def small(name: str) -> Family:
    """A family of two layers; more where two would all be alike."""
    family = next(f for f in FAMILIES if f.name == name)
    layers = "n_layer" if name == "GPT2" else "num_hidden_layers"
    options = {**family.options, layers: 2}
    if name == "Llama":
        options["tie_word_embeddings"] = True
    return replace(family, options=options)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    made: dict[tuple[str, int], effc.CompiledModel] = {}

    def compiled(name: str, bits: int) -> effc.CompiledModel:
        if (name, bits) not in made:
            folder = tmp_path_factory.mktemp(name) / "model"
            small(name).save(folder)
            made[name, bits] = effc.optimize(folder, policy(bits))
        return made[name, bits]

    return compiled


# Tied tables, biases, windows and soft caps, learned positions, a part of each head rotated, norms
# of queries, fused projections, experts; 24 < PROMPT + NEW goes beyond the windows.
@pytest.mark.parametrize(
    ("name", "bits", "dialect", "opset"),
    (
        ("Llama", 0, "ort", None),
        ("Llama", 0, "standard", None),
        ("Llama", 4, "ort", None),
        ("Llama", 4, "standard", 24),
        ("Llama", 3, "ort", None),
        ("Llama", 2, "standard", 25),
        ("Qwen2", 4, "ort", 24),
        ("Qwen2", 0, "standard", 18),
        ("Qwen3", 0, "ort", None),
        ("Gemma2", 0, "ort", None),
        ("Gemma2", 4, "standard", 21),
        ("GPT2", 4, "ort", None),
        ("GPT2", 0, "standard", None),
        ("GPTNeoX", 0, "ort", 23),
        ("GPTNeoX", 0, "standard", 18),
        ("Phi3", 4, "ort", None),
        ("Mixtral", 0, "standard", None),
        ("Mixtral", 4, "ort", None),
    ),
)
def test_tokens_and_logits_are_those_of_the_engine(
    name: str, bits: int, dialect: str, opset: int | None, build: Build, tmp_path: Path
) -> None:
    fast = build(name, bits)
    fast.export(tmp_path / "m.onnx", dialect=dialect, opset=opset)
    ids = torch.randint(5, 199, (2, PROMPT))
    expected = fast.generate(ids, max_new_tokens=NEW)
    tokens, logits = greedy(tmp_path / "m.onnx", ids, NEW)
    assert torch.equal(tokens, expected)
    exact = fast(expected[:, :-1]).logits
    torch.testing.assert_close(logits, exact, rtol=0, atol=2e-5 * exact.abs().max().item())
    # GroupQueryAttention takes a prompt in pieces for one sequence at a time.
    rows = ids if dialect == "standard" else ids[:1]
    pieces, _ = greedy(tmp_path / "m.onnx", rows, NEW, pieces=(7, 1))
    assert torch.equal(pieces, expected[: len(rows)])


@pytest.mark.parametrize("dialect", ("ort", "standard"))
def test_rounded_activations(dialect: str, build: Build, tmp_path: Path) -> None:
    """`MatMulNBits` at accuracy level 4 is what effc means by int8."""
    folder = build("Llama", 0).program.info.source
    rule = {"where": "linear", "method": "rtn", "bits": 4, "activations": "int8"}
    fast = effc.optimize(Path(folder), {"version": 1, "quantize": [rule]})
    done = fast.export(tmp_path / "m.onnx", dialect=dialect)
    ids = torch.randint(5, 199, (1, 3))
    _, logits = greedy(done["decode"], ids, 1)
    exact = fast(ids).logits
    error = (logits - exact).abs().max() / exact.abs().max()
    assert error < (1e-2 if dialect == "ort" else 5e-2)


def test_padding_on_the_left_in_the_standard_dialect(build: Build, tmp_path: Path) -> None:
    fast = build("Gemma2", 0)
    fast.export(tmp_path / "m.onnx", dialect="standard")
    prompts = [torch.randint(5, 199, (1, n)) for n in (13, 9)]
    width = max(p.shape[1] for p in prompts)
    ids, mask = (torch.zeros(2, width, dtype=torch.int64) for _ in range(2))
    for row, prompt in enumerate(prompts):
        ids[row, width - prompt.shape[1] :], mask[row, width - prompt.shape[1] :] = prompt[0], 1
    decoding = Decoding(tmp_path / "m.onnx", 2)
    logits = decoding.feed(ids, mask)
    rows = [prompt[0].tolist() for prompt in prompts]
    for _ in range(14):  # beyond the window
        best = logits[:, -1:].argmax(-1)
        for row, token in zip(rows, best[:, 0].tolist(), strict=True):
            row.append(token)
        logits = decoding.feed(best)
    for row, prompt in zip(rows, prompts, strict=True):
        assert row == fast.generate(prompt, max_new_tokens=14)[0].tolist()


def test_padding_on_the_right_in_the_dialect_of_onnxruntime(build: Build, tmp_path: Path) -> None:
    """The mask of a row is ones and then zeros; the next token goes behind the ones."""
    fast = build("GPT2", 4)
    fast.export(tmp_path / "m.onnx")
    prompts = [torch.randint(5, 199, (1, n)) for n in (9, 5)]
    width = max(p.shape[1] for p in prompts)
    ids = torch.zeros(2, width, dtype=torch.int64)
    lengths = [p.shape[1] for p in prompts]
    for row, prompt in enumerate(prompts):
        ids[row, : lengths[row]] = prompt[0]
    decoding = Decoding(tmp_path / "m.onnx", 2)
    decoding.mask = decoding.mask[:, :0]
    first = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    logits = decoding.feed(ids, first.long())
    best = torch.stack([logits[row, n - 1].argmax() for row, n in enumerate(lengths)])[:, None]
    rows = [[*p[0].tolist(), b] for p, b in zip(prompts, best[:, 0].tolist(), strict=True)]
    for step in range(3):
        held = torch.tensor(lengths)[:, None] + step + 1
        decoding.mask = (torch.arange(width + step)[None] < held).long().numpy()
        ahead = (torch.tensor([width + step]) < held).long()
        best = decoding.feed(best, ahead)[:, -1:].argmax(-1)
        for row, token in zip(rows, best[:, 0].tolist(), strict=True):
            row.append(token)
    for row, prompt in zip(rows, prompts, strict=True):
        assert row == fast.generate(prompt, max_new_tokens=4)[0].tolist()


def test_an_artifact_read_back_exports_the_same(build: Build, tmp_path: Path) -> None:
    fast = build("Llama", 4)
    fast.save(tmp_path / "out")
    fast.export(tmp_path / "a.onnx")
    effc.load(tmp_path / "out").export(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_projections_are_joined_whose_biases_are_one_constant(tmp_path: Path) -> None:
    """Biases of zeros everywhere are stored once; the matrices in front of them are not."""
    model = small("Qwen2").build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.bias"):
                parameter.zero_()
    model.save_pretrained(tmp_path / "model")
    fast = effc.optimize(tmp_path / "model", policy(4))
    fast.export(tmp_path / "m.onnx")
    graph = ir.load(tmp_path / "m.onnx").graph
    calls = [node for node in graph if node.op_type == "GroupQueryAttention"]
    assert [node.inputs[1:3] for node in calls] == [(None, None)] * 2
    ids = torch.randint(5, 199, (1, PROMPT))
    tokens, _ = greedy(tmp_path / "m.onnx", ids, NEW)
    assert tokens.tolist() == fast.generate(ids, max_new_tokens=NEW).tolist()


def test_half_precision(build: Build, tmp_path: Path) -> None:
    folder = Path(build("Llama", 0).program.info.source)
    fast = effc.optimize(folder, {"version": 1, "target": {"dtype": "float16"}})
    fast.export(tmp_path / "m.onnx")
    ids = torch.randint(5, 199, (2, 9))
    tokens, logits = greedy(tmp_path / "m.onnx", ids, 4)
    exact = fast(tokens[:, :-1]).logits.float()
    assert logits.dtype == torch.float16
    assert (logits.float() - exact).abs().max() < 4e-3 * exact.abs().max()
