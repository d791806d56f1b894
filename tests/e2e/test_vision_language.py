"""Vision-language models: what transformers says, through encode, embed and decode."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import effc
from effc.cli import main
from effc.compiler import plan_model
from effc.diagnostics import GenerationError, ModelError
from effc.runtime.images import expand_image_tokens, image_config, prepare_images
from effc.runtime.session import PREFILL_CHUNK
from tests.e2e.vision_models import (
    ACCEPTED,
    IMAGE_TOKEN,
    REFUSED,
    SIZE,
    gemma3,
    llava,
    mixed_rows,
    padded,
    pixels,
    save,
)

M = 9  # of the tiny LLaVA without its class token
ROUNDINGS = 10.0
"""How many times transformers' own rounding error a logit may be off."""


@torch.no_grad()
def reference(model: Any, rows: list[list[int]], images: Tensor | None) -> list[Tensor]:
    """Transformers' logits [T, V] of every row, alone and without padding."""
    found, first = [], 0
    for row in rows:
        count = row.count(IMAGE_TOKEN) // model_tokens(model)
        own = None if images is None or not count else images[first : first + count]
        own = None if own is None else own.to(model.dtype)
        found.append(model(input_ids=torch.tensor([row]), pixel_values=own).logits[0])
        first += count
    return found


@torch.no_grad()
def model_tokens(model: Any) -> int:
    """How many image tokens one image takes."""
    image = pixels(model, 1).to(model.dtype)
    return int(model.model.get_image_features(image).pooler_output[0].shape[0])


def assert_equal_logits(
    model: Any, compiled: effc.CompiledModel, rows: list[list[int]], images: Tensor | None
) -> None:
    """As close to fp64 as transformers in fp32, up to the order of sums."""
    ids, mask = padded(rows)
    exact = torch.cat(reference(deepcopy(model).double(), rows, images))
    rounding = (torch.cat(reference(model, rows, images)) - exact).abs().max()
    logits = compiled(ids, mask, images).logits
    error = (logits[mask == 1] - exact).abs().max()
    assert error <= ROUNDINGS * rounding
    assert rounding < 1e-5 * exact.abs().max()


def assert_equal_answers(
    model: Any, compiled: effc.CompiledModel, rows: list[list[int]], images: Tensor | None, new: int
) -> None:
    ids, mask = padded(rows)
    options = {"attention_mask": mask, "pixel_values": images, "max_new_tokens": new}
    expected = model.generate(input_ids=ids, do_sample=False, **options)
    assert compiled.generate(ids, **options).tolist() == expected.tolist()


@pytest.fixture(scope="module")
def model() -> Any:
    return llava()


@pytest.fixture(scope="module")
def compiled(model: Any) -> effc.CompiledModel:
    return effc.optimize(model)


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llava")
    save(model, path)
    return path


@pytest.fixture(scope="module")
def artifact(folder: Path) -> Path:
    """The compiled folder; its program comes from weights on the disk."""
    effc.optimize(folder).save(folder / "out")
    return folder / "out"


@pytest.mark.parametrize("name", ACCEPTED)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str) -> None:
    model = ACCEPTED[name]()
    compiled = effc.optimize(model)
    per_image = compiled.program.info.image_tokens
    assert per_image is not None
    rows, images = mixed_rows(per_image), pixels(model, 3)
    assert_equal_logits(model, compiled, rows, images)
    assert_equal_answers(model, compiled, rows, images, 24)
    assert_equal_logits(model, compiled, [[4, 5, 6], [7]], None)


def test_every_image_matters_in_its_place(compiled: effc.CompiledModel, model: Any) -> None:
    ids, mask = padded(mixed_rows(M))
    images = pixels(model, 3)
    one = compiled(ids, mask, images).logits
    other = compiled(ids, mask, images[[1, 0, 2]]).logits
    assert (one[0] - other[0]).abs().max() > 0.1
    assert torch.equal(one[1:], other[1:])


def test_images_lie_across_the_pieces_of_a_long_prompt(
    model: Any, compiled: effc.CompiledModel
) -> None:
    image = [IMAGE_TOKEN] * M
    words = torch.randint(0, IMAGE_TOKEN, (700,), generator=torch.Generator().manual_seed(1))
    text = words.tolist()
    cut = PREFILL_CHUNK - 4
    # The first image of row 0 begins four tokens before the end of its first piece.
    rows = [
        [*text[:cut], *image, *text[cut : cut + 60], *image, 5],
        [7, *image, 8],
        text[: PREFILL_CHUNK + 3],
    ]
    images = pixels(model, 3)
    assert_equal_logits(model, compiled, rows, images)
    assert_equal_answers(model, compiled, rows, images, 6)


def test_an_image_token_that_the_model_writes_is_a_word(
    model: Any, compiled: effc.CompiledModel
) -> None:
    ids = torch.tensor([[IMAGE_TOKEN, 4, IMAGE_TOKEN], [IMAGE_TOKEN, 5, 6]])
    features = torch.randn(2, 32)
    embeds = compiled.executable("embed", {"ids": ids, "features": features})["embeds"]
    table = model.get_input_embeddings().weight.detach()
    expected = table[ids]
    expected[0, 0], expected[0, 2] = features
    assert torch.equal(embeds, expected)
    nothing = {"ids": ids, "features": torch.zeros(0, 32)}
    assert torch.equal(compiled.executable("embed", nothing)["embeds"], table[ids])


def test_sampling_and_log_probabilities_are_those_of_the_decoder(
    compiled: effc.CompiledModel, model: Any
) -> None:
    ids, mask = padded(mixed_rows(M))
    options = {"attention_mask": mask, "pixel_values": pixels(model, 3), "max_new_tokens": 8}
    sampled = [compiled.generate(ids, do_sample=True, seed=4, **options) for _ in range(2)]
    assert torch.equal(*sampled)
    result = compiled.generate_result(ids, logprobs=True, **options)
    logits = compiled(ids, mask, options["pixel_values"]).logits[:, -1]
    best = logits.log_softmax(-1).max(-1).values
    assert result.logprobs is not None
    assert torch.allclose(torch.tensor([row[0] for row in result.logprobs]), best, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_made_in_another_way_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(ModelError, match="E0302") as caught:
        effc.optimize(make())
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert "LLaVA kind" in str(caught.value.help)


@torch.inference_mode()
def test_a_language_model_that_sees_in_another_way_is_compiled_for_text(tmp_path: Path) -> None:
    model = gemma3().eval()
    model.save_pretrained(tmp_path)
    fast = effc.optimize(tmp_path)
    notes = [note for note in fast.program.notes if "text alone" in note]
    assert len(notes) == 1 and "see one another in both directions" in notes[0]
    ids = torch.tensor([[3, 7, 11, 5, 2]])
    assert torch.allclose(fast(ids).logits, model(ids).logits, atol=1e-5)
    with pytest.raises(GenerationError, match="E0703"):
        fast.generate(ids, pixel_values=pixels(model, 1))


def test_a_folder_is_refused_like_a_module(tmp_path: Path) -> None:
    make, words = REFUSED["PaliGemma"]
    make().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="E0302") as caught:
        effc.optimize(tmp_path)
    assert words in caught.value.message


def test_a_model_is_as_it_was_after_capturing_it(model: Any, compiled: effc.CompiledModel) -> None:
    assert model.config._attn_implementation == "eager"
    assert not any("forward" in vars(part) for part in model.modules())
    assert "get_image_features" not in vars(model.model)


ID = torch.tensor([[3, *[IMAGE_TOKEN] * M, 5]])
WRONG: dict[str, tuple[Tensor, Any, str]] = {
    "no images": (ID, None, "found 9, expected 0 (there are no images)"),
    "too many images": (ID, torch.zeros(2, 3, SIZE, SIZE), "found 9, expected 18 (9 for each of 2"),
    "no places": (ID[:, :1], torch.zeros(1, 3, SIZE, SIZE), "found 0, expected 9"),
    "another size": (ID, torch.zeros(1, 3, 8, 8), "a floating-point tensor [N, 3, 12, 12], found"),
    "bytes": (ID, torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), "torch.uint8"),
    "an array": (ID, np.zeros((1, 3, SIZE, SIZE)), "found 'ndarray'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_images_and_their_places_must_agree(name: str, compiled: effc.CompiledModel) -> None:
    ids, images, words = WRONG[name]
    for call in (compiled, compiled.generate):
        with pytest.raises(GenerationError, match="E0703") as caught:
            call(ids, pixel_values=images)
        assert words in caught.value.message


def test_a_model_of_text_alone_takes_no_images(tiny_llama: Path) -> None:
    made = effc.optimize(tiny_llama)
    for call in (made, made.generate):
        with pytest.raises(GenerationError, match="E0703.*pixel_values"):
            call(torch.tensor([[1, 2]]), pixel_values=torch.zeros(1, 3, SIZE, SIZE))


def test_sites_of_the_tower_are_its_own(folder: Path) -> None:
    policy = {
        "kv": [{"where": "attention", "store": {"method": "int8"}}],
        "quantize": [{"where": 'stage("encode") and layer == -1 and linear', "method": "rtn"}],
    }
    planned = plan_model(folder, policy)
    attention = [site for site in planned.sites if site.kind == "attention"]
    seen = {(s.modality, s.stage, s.mask, s.layers) for s in attention}
    assert seen == {("vision", "encode", "full", 2), ("text", "forward", "causal", 2)}
    stored = [step.site.stage for step in planned.plan.of("store")]
    assert stored == ["forward", "forward"]
    assert len([reason for _, reason in planned.plan.skipped if "keeps no cache" in reason]) == 2
    quantized = [step.site for step in planned.plan.of("quantize")]
    assert len(quantized) == 6 and all(".layers.1." in site.name for site in quantized)
    assert [stage["name"] for stage in planned.prediction["stages"]] == [
        "encode", "prefill", "decode",
    ]  # fmt: skip


def test_a_quantized_tower_sees_worse_with_fewer_bits(
    folder: Path, compiled: effc.CompiledModel, model: Any
) -> None:
    images = pixels(model, 2)
    exact = compiled.executable("encode", {"pixel_values": images})["features"]
    text = torch.tensor([[4, 5, 6]])
    errors = []
    for bits in (8, 4, 2):
        rule = {"where": 'stage("encode") and linear', "method": "rtn", "bits": bits}
        made = effc.optimize(folder, spec={"quantize": [rule]})
        assert torch.equal(made(text).logits, compiled(text).logits)
        found = made.executable("encode", {"pixel_values": images})["features"]
        errors.append(float((found - exact).norm() / exact.norm()))
    assert 0 < errors[0] < 0.05 < errors[1] < errors[2]


def test_quality_is_measured_on_words_alone(folder: Path) -> None:
    rule = {"where": "linear or embedding", "method": "rtn", "bits": 8}
    spec = {"quality": {"tokens": 128, "max_kl": 5.0}, "quantize": [rule]}
    report = effc.optimize(folder, spec=spec).report
    assert report["quality"]["text"]["label"].endswith("words alone, no images")
    assert all(entry["ok"] for entry in report["quality"]["fired"])


PROGRAM = """
import sys, json

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"transformers", "PIL", "onnx", "lark", "triton"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import torch, effc
ids, images = torch.load(sys.argv[2])
model = effc.load(sys.argv[1])
print(json.dumps(model.generate(ids, pixel_values=images, max_new_tokens=12).tolist()))
"""


def test_an_artifact_sees_without_the_libraries_that_made_it(
    artifact: Path, model: Any, tmp_path: Path
) -> None:
    ids, images = torch.tensor([mixed_rows(M)[0]]), pixels(model, 2)
    torch.save((ids, images), tmp_path / "inputs.pt")
    command = [sys.executable, "-c", PROGRAM, str(artifact), str(tmp_path / "inputs.pt")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    expected = model.generate(
        input_ids=ids, pixel_values=images, max_new_tokens=12, do_sample=False
    )
    assert json.loads(ran.stdout) == expected.tolist()


def test_loaded_it_is_what_was_saved(artifact: Path, compiled: effc.CompiledModel) -> None:
    loaded = effc.load(artifact)
    info = loaded.program.info
    assert (info.image_token, info.image_tokens) == (IMAGE_TOKEN, M)
    assert list(loaded.program.stages) == ["encode", "embed", "decode"]
    assert "preprocessor_config.json" in info.files
    ids, images = torch.tensor([mixed_rows(M)[0]]), torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(
        loaded(ids, pixel_values=images).logits, compiled(ids, pixel_values=images).logits
    )


def test_run_takes_images(
    artifact: Path, model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = [np.random.default_rng(n).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for n in (0, 1)]
    flags = []
    for n, shot in enumerate(shots):
        np.save(tmp_path / f"{n}.npy", shot)
        flags += ["--image", str(tmp_path / f"{n}.npy")]
    prompt = "w1 <image> w2 <image> w3"
    command = ["run", str(artifact), "--prompt", prompt, "--max-new-tokens", "6", "--json"]
    assert main([*command, *flags]) == 0
    found = json.loads(capsys.readouterr().out)["tokens"]
    ids = expand_image_tokens([1, IMAGE_TOKEN, 2, IMAGE_TOKEN, 3], IMAGE_TOKEN, M)
    images = prepare_images(shots, image_config(effc.load(artifact).program.info))
    out = model.generate(
        input_ids=torch.tensor([ids]), pixel_values=images, max_new_tokens=6, do_sample=False
    )
    assert found == out[0, len(ids) :].tolist()


@pytest.mark.parametrize(
    ("prompt", "images", "words"),
    [
        ("w1 w2", 1, "the prompt has 0 places for images and there are 1"),
        ("w1 <image> <image>", 1, "the prompt has 2 places for images and there are 1"),
        ("w1 <image>", 0, "found 1, expected 0 (there are no images)"),
    ],
)
def test_run_counts_images(
    artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prompt: str,
    images: int,
    words: str,
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((SIZE, SIZE, 3), np.uint8))
    flags = ["--image", str(tmp_path / "a.npy")] * images
    assert main(["run", str(artifact), "--prompt", prompt, *flags]) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert "<image>" in errors or "--image" in errors


def test_exports_are_one_file_per_stage(
    artifact: Path, model: Any, tmp_path: Path, compiled: effc.CompiledModel
) -> None:
    ort = pytest.importorskip("onnxruntime")
    files = effc.load(artifact).export(tmp_path / "m.onnx")
    assert list(files) == ["encode", "embed", "decode"]
    run = {stage: ort.InferenceSession(str(path)).run for stage, path in files.items()}
    ids, images = torch.tensor([mixed_rows(M)[0]]), pixels(model, 2)
    features = run["encode"](None, {"pixel_values": images.numpy()})[0].reshape(-1, 32)
    embeds = run["embed"](None, {"ids": ids.numpy(), "features": features})[0]
    past = {f"past_key_values.{n}.{kind}": np.zeros((1, 2, 0, 8), np.float32)
            for n in range(2) for kind in ("key", "value")}  # fmt: skip
    mask = np.ones(ids.shape, np.int64)
    inputs = {"inputs_embeds": embeds, "attention_mask": mask, **past}
    logits = torch.from_numpy(run["decode"](None, inputs)[0])
    expected = compiled(ids, pixel_values=images).logits
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_programs_of_torch_export_decode_from_embeddings(
    artifact: Path, tmp_path: Path, compiled: effc.CompiledModel
) -> None:
    from effc.export.dense import empty_past

    files = effc.load(artifact).export(tmp_path / "m.pt2", "pt2")
    embed, decode = (torch.export.load(files[name]).module() for name in ("embed", "decode"))
    ids = torch.tensor([[4, 5, 6]])
    one = torch.zeros(1, 32)
    result = decode(
        embeds=embed(ids=ids, features=one)["embeds"],
        positions=torch.arange(3)[None],
        new_len=torch.tensor([3]),
        logit_rows=torch.arange(3)[None],
        lengths=torch.tensor([0]),
        past=empty_past(compiled.program, 1, 8),
    )
    expected = compiled(ids).logits
    assert (result[0] - expected).abs().max() < 1e-5 * expected.abs().max()
