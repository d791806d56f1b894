"""Images as a vision tower takes them, as the library's CLIP and SigLIP processors make them.

    uint8 [H, W, 3] --resize, center crop--> uint8 [height, width, 3]
        --(x * rescale_factor - mean) / std--> float32 [3, height, width]

The numbers come from the folder's preprocessor_config.json. Pillow resizes, and reads files that
are no arrays; images of the right size need none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.ir.program import ModelInfo
from effc.runtime.arguments import bad_argument

if TYPE_CHECKING:
    from types import ModuleType

Image = NDArray[np.uint8]
"""[H, W, 3], red, green, blue."""

CONFIG_FILES = ("preprocessor_config.json", "processor_config.json")

_CLIP: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": 224,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

# Processor -> what holds where its file says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP,
    "LlavaImageProcessor": _CLIP,
    "SiglipImageProcessor": _CLIP | _HALVES | {"size": 224, "do_center_crop": False},
}


@dataclass(frozen=True)
class ImageConfig:
    """What a processor does to an image.

    Attributes:
        size: {"height", "width"}, or {"shortest_edge"} that keeps the proportions; None leaves
            images as large as they are.
        crop: height and width of the middle part that is kept; None keeps all.
        resample: Pillow's number of the filter.
        factor: colours are multiplied by it.
        mean, std: per channel; None for colours that are not normalized.
    """

    size: Mapping[str, int] | None
    crop: tuple[int, int] | None
    resample: int
    factor: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ImageConfig:
        """Read the content of a preprocessor_config.json.

        Raises:
            GenerationError: E0703, a processor or a step that is not known here.
        """
        known = _defaults(data) | {k: v for k, v in data.items() if v is not None}
        if known.get("do_pad"):
            raise _unknown("do_pad = true: it pads images before it resizes them")
        square = "Siglip" in str(data.get("image_processor_type", ""))
        try:
            normalize = known["do_normalize"]
            return cls(
                _sides(known["size"], square) if known["do_resize"] else None,
                _pair(known["crop_size"]) if known["do_center_crop"] else None,
                int(known["resample"]),
                float(known["rescale_factor"]) if known["do_rescale"] else 1.0,
                tuple(map(float, known["image_mean"])) if normalize else None,
                tuple(map(float, known["image_std"])) if normalize else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(f"a value that cannot be used ({error})") from error


def _defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    kind = data.get(
        "image_processor_type", data.get("feature_extractor_type", "CLIPImageProcessor")
    )
    name = str(kind).removesuffix("Fast").removesuffix("Pil")
    name = name.replace("FeatureExtractor", "ImageProcessor")
    if name not in _DEFAULTS:
        raise _unknown(f"the processor {name!r}; known are {', '.join(_DEFAULTS)}")
    return _DEFAULTS[name]


def _sides(size: Any, square: bool) -> dict[str, int]:
    if isinstance(size, int):
        return {"height": size, "width": size} if square else {"shortest_edge": size}
    sides = {name: int(value) for name, value in size.items() if value is not None}
    if set(sides) not in ({"height", "width"}, {"shortest_edge"}):
        raise ValueError(f"size {sides}")
    return sides


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def _unknown(what: str) -> GenerationError:
    return GenerationError(
        "E0703",
        f"the preprocessor_config.json asks for {what}",
        help="prepare the images with the library's own processor, and pass pixel_values",
    )


def image_config(info: ModelInfo) -> dict[str, Any]:
    """What the files that came with a model say about its images.

    Raises:
        GenerationError: E0703, there is no such file, or it is damaged.
    """
    for name in CONFIG_FILES:
        path = info.files.get(name)
        if path is None:
            continue
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            # A processor of images and texts keeps the part about images under a name of its own.
            found = data.get("image_processor", data if name == CONFIG_FILES[0] else None)
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise GenerationError(
                "E0703", f"{name} cannot be read ({error})", where=str(path)
            ) from error
        if isinstance(found, dict):
            return found
    raise GenerationError(
        "E0703",
        "the model has no preprocessor_config.json, so nothing says how an image becomes "
        "pixel_values",
        where=info.source,
        help="put the file beside the model and compile it again, or pass pixel_values",
    )


def read_image(path: Path) -> Image:
    """An image from a file that Pillow knows, or a .npy file of uint8 [H, W, 3].

    Raises:
        GenerationError: E0703, it cannot be read, or Pillow is not installed.
    """
    try:
        if path.suffix == ".npy":
            return _checked(np.load(path, allow_pickle=False), str(path))
        with _pillow(f"reading {path.name}").open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise GenerationError(
            "E0703", f"the image cannot be read: {reason}", where=str(path)
        ) from error


def prepare_images(images: Sequence[Image], config: Mapping[str, Any]) -> Tensor:
    """Images as `pixel_values`.

    Args:
        images: uint8 [H, W, 3] each, of any sizes.
        config: the content of the model's preprocessor_config.json, see `image_config`.

    Returns:
        float32 [N, 3, height, width].

    Raises:
        GenerationError: E0703, what is no such image, a processor that is not known, or an image
            that must be resized where Pillow is not installed.
    """
    chosen = ImageConfig.of(config)
    made = [_prepared(_checked(x, f"image {n}"), chosen) for n, x in enumerate(images)]
    sizes = sorted({pixels.shape[1:] for pixels in made})
    if len(sizes) != 1:
        found = " and ".join(f"{h} x {w}" for h, w in sizes) or "no image"
        raise bad_argument("images", found, "of one size after resizing and cropping")
    return torch.from_numpy(np.stack(made))


def expand_image_tokens(ids: Sequence[int], image_token: int, per_image: int) -> list[int]:
    """A prompt with every image token repeated `per_image` times."""
    return [each for token in ids for each in [token] * (per_image if token == image_token else 1)]


def _checked(image: Any, where: str) -> Image:
    shape = getattr(image, "shape", ())
    if getattr(image, "dtype", None) != np.uint8 or len(shape) != 3 or shape[2] != 3:
        found = f"{list(shape)} of {getattr(image, 'dtype', type(image).__name__)}"
        raise bad_argument(where, found, "an array [H, W, 3] of uint8")
    if not image.size:
        raise bad_argument(where, list(shape), "an image with pixels")
    return image


def _prepared(image: Image, config: ImageConfig) -> NDArray[np.float32]:
    """One image, float32 [3, height, width]."""
    if config.size is not None:
        image = _resized(image, _target(image, config.size), config.resample)
    if config.crop is not None:
        image = _cropped(image, config.crop)
    # As in the library: the product in double precision, the rest in single.
    pixels = (image.astype(np.float64) * config.factor).astype(np.float32)
    if config.mean is not None and config.std is not None:
        mean, std = (np.asarray(each, dtype=np.float32) for each in (config.mean, config.std))
        pixels = (pixels - mean) / std
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _target(image: Image, size: Mapping[str, int]) -> tuple[int, int]:
    """Height and width to resize to."""
    if "height" in size:
        return size["height"], size["width"]
    height, width = image.shape[:2]
    short = size["shortest_edge"]
    long = int(short * max(height, width) / min(height, width))
    return (long, short) if width <= height else (short, long)


def _resized(image: Image, target: tuple[int, int], resample: int) -> Image:
    if image.shape[:2] == target:
        return image
    what = f"resizing an image of {image.shape[0]} x {image.shape[1]} to {target[0]} x {target[1]}"
    return np.asarray(_pillow(what).fromarray(image).resize(target[::-1], resample))


def _cropped(image: Image, crop: tuple[int, int]) -> Image:
    """The middle of an image; black surrounds one that is too small."""
    starts = []
    for axis, wanted in enumerate(crop):
        have = image.shape[axis]
        if have < wanted:
            before = math.ceil((wanted - have) / 2)
            margin = [(0, 0)] * 3
            margin[axis] = (before, wanted - have - before)
            image = np.pad(image, margin)
        starts.append(max(0, (have - wanted) // 2))
    top, left = starts
    return image[top : top + crop[0], left : left + crop[1]]


def _pillow(what: str) -> ModuleType:
    """Pillow's module of images.

    Raises:
        GenerationError: E0703 when it is not installed.
    """
    try:
        from PIL import Image as module
    except ImportError as error:
        raise GenerationError(
            "E0703",
            f"{what} needs Pillow, which is not installed",
            help="pip install 'effc[images]', or give uint8 arrays [H, W, 3] of the tower's size",
        ) from error
    return module
