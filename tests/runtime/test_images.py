"""Images as the library's own processors prepare them."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from effc.diagnostics import GenerationError
from effc.ir.program import ModelInfo
from effc.runtime.images import (
    expand_image_tokens,
    image_config,
    prepare_images,
    read_image,
)

Image = NDArray[np.uint8]
SMALL = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 12},
    "crop_size": {"height": 12, "width": 12},
}


def image(height: int, width: int, seed: int = 0) -> Image:
    """Smooth colours with some noise: filters differ on them, and edges show."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    waves = np.stack([rows * 9, columns * 7, rows * columns], -1) % 196
    return (waves + noise).astype(np.uint8)


def test_an_image_of_the_right_size_is_only_scaled() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3)[: 12 * 12 * 3].reshape(12, 12, 3)
    mean, std = np.float32([0.1, 0.2, 0.3]), np.float32([0.4, 0.5, 0.6])
    config = SMALL | {"image_mean": mean.tolist(), "image_std": std.tolist()}
    expected = (every.astype(np.float32) / np.float32(255) - mean) / std
    found = prepare_images([every], config)
    assert found.dtype == torch.float32
    assert np.array_equal(found[0].numpy(), expected.transpose(2, 0, 1))


SIZES = [(12, 12), (20, 15), (15, 20), (9, 31), (224, 100)]
PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIP": {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}},
    "CLIP, crop larger than the image": {
        "size": {"shortest_edge": 9},
        "crop_size": {"height": 12, "width": 14},
    },
    "CLIP, bilinear, square": {"size": {"height": 13, "width": 11}, "resample": 2,
                               "do_center_crop": False},
    "CLIP, not normalized": {"size": {"shortest_edge": 12}, "crop_size": 12,
                             "do_normalize": False, "rescale_factor": 1 / 127.5},
    "CLIP, as it comes": {"do_resize": False, "crop_size": {"height": 10, "width": 40}},
    "Siglip": {"size": {"height": 12, "width": 12}},
    "Siglip, defaults": {},
    "Llava": {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}},
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_library(name: str) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    import transformers

    kind = f"{name.partition(',')[0]}ImageProcessorPil"
    if not hasattr(transformers, kind):
        pytest.skip(f"this version of transformers has no {kind}")
    processor = getattr(transformers, kind)(**PROCESSORS[name])
    config = json.loads(processor.to_json_string())
    for size in SIZES:
        shot = image(*size)
        expected = processor(shot, return_tensors="pt", input_data_format="channels_last")
        found = prepare_images([shot], config)
        assert torch.equal(found, expected["pixel_values"]), size
        assert torch.equal(prepare_images([shot], _sparse(config)), found), size


def _sparse(config: dict[str, Any]) -> dict[str, Any]:
    """Without what holds anyway."""
    known = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3}
    return {k: v for k, v in config.items() if k not in known or known[k] != v}


def test_several_images_make_one_batch() -> None:
    shots = [image(12, 12, seed) for seed in range(3)]
    found = prepare_images(shots, SMALL)
    assert found.shape == (3, 3, 12, 12)
    alone = torch.cat([prepare_images([shot], SMALL) for shot in shots])
    assert torch.equal(found, alone)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "floats": (np.zeros((12, 12, 3)), SMALL, "an array [H, W, 3] of uint8, found"),
    "grey": (np.zeros((12, 12), np.uint8), SMALL, "found '[12, 12] of uint8'"),
    "empty": (np.zeros((0, 12, 3), np.uint8), SMALL, "an image with pixels"),
    "unknown processor": (
        image(12, 12),
        {"image_processor_type": "Qwen2VLImageProcessor"},
        "the processor 'Qwen2VLImageProcessor'; known are CLIPImageProcessor",
    ),
    "padding": (image(12, 12), SMALL | {"do_pad": True}, "do_pad = true"),
    "odd size": (image(12, 12), SMALL | {"size": {"longest_edge": 4}}, "cannot be used"),
    "no number": (image(12, 12), SMALL | {"rescale_factor": "x"}, "cannot be used"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_prepared_is_refused(name: str) -> None:
    shot, config, words = REFUSED[name]
    with pytest.raises(GenerationError, match="E0703") as caught:
        prepare_images([shot], config)
    assert words in caught.value.message


def test_images_of_several_sizes_make_no_batch() -> None:
    config = SMALL | {"do_resize": False, "do_center_crop": False}
    with pytest.raises(GenerationError, match="12 x 12 and 12 x 13"):
        prepare_images([image(12, 12), image(12, 13)], config)
    with pytest.raises(GenerationError, match="no image"):
        prepare_images([], SMALL)


def test_without_pillow_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    genuine = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    prepare_images([image(12, 12)], SMALL)
    for act, words in (
        (lambda: prepare_images([image(20, 15)], SMALL), "20 x 15 to 16 x 12 needs Pillow"),
        (lambda: read_image(tmp_path / "a.png"), "reading a.png needs Pillow"),
    ):
        with pytest.raises(GenerationError, match=words) as caught:
            act()
        assert "effc[images]" in str(caught.value.help)


def test_files_are_read(tmp_path: Path) -> None:
    shot = image(7, 5)
    np.save(tmp_path / "a.npy", shot)
    assert np.array_equal(read_image(tmp_path / "a.npy"), shot)
    module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    module.fromarray(shot).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), shot)
    grey = module.fromarray(shot).convert("L")
    grey.save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (7, 5, 3)


@pytest.mark.parametrize("name", ["missing.npy", "broken.npy", "objects.npy", "floats.npy"])
def test_files_that_hold_no_image_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\x01")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "floats.npy", np.zeros((4, 4, 3)))
    with pytest.raises(GenerationError, match="E0703") as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value)


def test_the_folder_says_how(tmp_path: Path) -> None:
    def info(**files: Any) -> ModelInfo:
        paths = {}
        for name, content in files.items():
            paths[f"{name}.json"] = tmp_path / f"{name}.json"
            paths[f"{name}.json"].write_text(json.dumps(content), encoding="utf-8")
        return ModelInfo("llava", "model", files=paths)

    assert image_config(info(preprocessor_config=SMALL)) == SMALL
    nested = {"processor_class": "LlavaProcessor", "image_processor": SMALL}
    assert image_config(info(processor_config=nested)) == SMALL
    with pytest.raises(GenerationError, match="has no preprocessor_config.json"):
        image_config(info(processor_config={"patch_size": 14}))
    with pytest.raises(GenerationError, match="cannot be read"):
        image_config(info(preprocessor_config=[1]))


def test_image_tokens_are_repeated_in_their_places() -> None:
    assert expand_image_tokens([1, 7, 2, 7], 7, 3) == [1, 7, 7, 7, 2, 7, 7, 7]
    assert expand_image_tokens([1, 2], 7, 3) == [1, 2]
