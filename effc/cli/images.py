"""Images of a prompt on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from effc.diagnostics import EffcError

if TYPE_CHECKING:
    from torch import Tensor

    from effc.api import CompiledModel


def with_images(
    model: CompiledModel, ids: list[int], paths: list[Path], artifact: Path
) -> tuple[list[int], Tensor]:
    """A prompt with room for its images, and the images as the model takes them.

    Args:
        model: must see.
        ids: the prompt, with one image token per image or with all of them.
        paths: one file per image.
        artifact: for messages.

    Raises:
        EffcError: E0101, the model does not see, or the prompt has another number of places;
            E0703, an image cannot be used.
    """
    from effc.runtime.images import expand_image_tokens, image_config, prepare_images, read_image

    info = model.program.info
    token, per_image = info.image_token, info.image_tokens
    if token is None or per_image is None:
        raise EffcError(
            "E0101",
            "the model reads text alone, so there is no place for an image",
            where=str(artifact),
            help="leave --image out, or compile a vision-language model",
        )
    places, count = ids.count(token), len(paths)
    if places not in (count, count * per_image):
        raise EffcError(
            "E0101",
            f"the prompt has {places} places for images and there are {count}",
            where="--image",
            help=f"write {_name(model, token)} into the prompt once for every --image, where the "
            "image belongs",
        )
    pixels = prepare_images([read_image(path) for path in paths], image_config(info))
    return (expand_image_tokens(ids, token, per_image) if places == count else ids), pixels


def _name(model: CompiledModel, token: int) -> str:
    """The image token as it is written in a prompt."""
    find = getattr(model.tokenizer, "id_to_token", None)
    return (find and find(token)) or f"the image token {token}"
