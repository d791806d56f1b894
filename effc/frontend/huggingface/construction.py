"""Is a vision-language model made the LLaVA way? Asked of the model, not of its name.

The library's own code between tower and decoder is run once, on numbers, with recorders in the
places of table, tower and decoder. A model is taken if its decoder then receives the table's rows
with the features of the images in the places of their tokens, and nothing else that the stages of
`effc.frontend.huggingface.vision` would not give it. Everything else is refused in one sentence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from effc.diagnostics import ModelError

HELP = (
    "effc takes vision-language models of the LLaVA kind: images of one size, projected to a fixed "
    "number of embeddings, read by a causal decoder like words"
)

# Arguments of `get_image_features` that say where the pieces of an image stand.
_GRIDS = ("image_grid_thw", "grid_thw", "image_grid_hws", "image_position_ids", "tgt_sizes")

# What the decoder may be handed besides the embeddings.
_HARMLESS = {
    "use_cache",
    "past_key_values",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "cache_position",
}


def refusal(message: str, place: str) -> ModelError:
    """E0302 with what effc takes instead."""
    return ModelError("E0302", message, where=place, help=HELP)


def require_signature(seer: Any, name: str, place: str) -> None:
    """Refuse a model that needs more than pixels to see.

    Args:
        seer: the class, or the part of the model that has `get_image_features`.
        name: of the class.
        place: for messages.

    Raises:
        ModelError: E0302.
    """
    look = getattr(seer, "get_image_features", None)
    if look is None:
        return
    parameters = dict(inspect.signature(look).parameters)
    parameters.pop("self", None)
    grid = next((key for key in _GRIDS if key in parameters), None)
    if grid is not None:
        raise refusal(
            f"{name} reads images of varying size ({grid}), whose tokens have positions in rows "
            "and columns",
            place,
        )
    needed = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    if needed != ["pixel_values"]:
        others = ", ".join(key for key in needed if key != "pixel_values") or "no pixel_values"
        raise refusal(
            f"{name} reads images in pieces or of varying size: its tower needs {others}", place
        )


def require_parts(model: Any, place: str) -> None:
    """Refuse a model that lacks a part of what LLaVA is made of.

    Raises:
        ModelError: E0302.
    """
    name, inner = type(model).__name__, getattr(model, "model", None)
    require_signature(inner, name, place)
    parts = {
        "a model": inner is not None,
        "a language_model in it": hasattr(inner, "language_model"),
        "get_image_features in it": hasattr(inner, "get_image_features"),
        "a vision_config": hasattr(model.config, "vision_config"),
        "a head": model.get_output_embeddings() is not None,
    }
    missing = next((part for part, there in parts.items() if not there), None)
    if missing is not None:
        raise refusal(f"{name} is built in another way than LLaVA: it lacks {missing}", place)


def image_token(model: Any, place: str) -> int:
    """The id whose places the features take.

    Raises:
        ModelError: E0302 if there is none, or none in the table of tokens.
    """
    token = getattr(model.config, "image_token_id", None)
    rows = model.get_input_embeddings().num_embeddings
    if not isinstance(token, int) or not 0 <= token < rows:
        raise refusal(
            f"image_token_id is {token!r}, and the table of tokens has {rows} rows", place
        )
    return token


def image_size(model: Any, place: str) -> tuple[int, int]:
    """Height and width of the images that the tower reads.

    Raises:
        ModelError: E0302 if the configuration does not say.
    """
    config = model.config.vision_config
    size = getattr(config, "image_size", None)
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise refusal(f"{type(config).__name__} states no image_size ({size!r})", place)
    return int(pair[0]), int(pair[1])


def width(model: Any) -> int:
    """W, the width of the embeddings."""
    return int(model.config.get_text_config().hidden_size)


def require_plain_reading(model: Any, token: int, tokens: int, listed: bool, place: str) -> None:
    """Run the library's code between tower and decoder, and see what the decoder is given.

    Args:
        model: from the library.
        token: the image token.
        tokens: M, features per image.
        listed: whether its tower hands out a list of images.
        place: for messages.

    Raises:
        ModelError: E0302, naming what is different.
    """
    generator = torch.Generator().manual_seed(0)
    W = width(model)
    features = torch.randn(3, tokens, W, generator=generator).to(model.dtype)
    other = 0 if token else 1
    images = [token] * tokens
    # Two images in one row, the first token among them; one in the other, at its end.
    ids = torch.tensor([[*images, other, *images, other], [*[other] * (tokens + 2), *images]])
    table = torch.randn(*ids.shape, W, generator=generator).to(model.dtype)
    expected = table.clone()
    expected[ids == token] = features.flatten(0, 1)
    mask = torch.ones_like(ids)
    pixels = _pixels(model, place)
    try:
        with _recording(model, table, features, listed) as calls:
            model.model(input_ids=ids, pixel_values=pixels, attention_mask=mask, use_cache=False)
    except Exception as error:  # the library raises whatever its code runs into
        reason = next(iter(str(error).strip().splitlines()), "")
        raise refusal(
            f"{type(model).__name__} cannot read ids and pixels alone "
            f"({type(error).__name__}: {reason})"[:400],
            place,
        ) from error
    problem = "calls its decoder not once" if len(calls) != 1 else _problem(calls[0], expected, ids)
    if problem:
        raise refusal(f"{type(model).__name__} {problem}", place)


def _pixels(model: Any, place: str) -> Tensor:
    channels = getattr(model.config.vision_config, "num_channels", 3)
    return torch.zeros(3, channels, *image_size(model, place), dtype=model.dtype)


def _problem(given: Mapping[str, Any], expected: Tensor, ids: Tensor) -> str:
    """What a decoder was given that the stages would not give it; an empty text if nothing."""
    embeds, positions = given.get("inputs_embeds"), given.get("position_ids")
    if not isinstance(embeds, Tensor) or not torch.equal(embeds, expected):
        return "does not put the features of its images in the places of their tokens as they are"
    mask = given.get("attention_mask")
    if not isinstance(mask, Tensor) or not torch.equal(mask, torch.ones_like(ids)):
        return "masks by rules of its own: its image tokens see one another in both directions"
    counted = torch.arange(ids.shape[1]).expand_as(ids)
    if positions is not None and not (
        positions.dim() == 2 and torch.equal(positions.expand_as(ids), counted)
    ):
        return "gives its tokens positions other than 0, 1, 2, ... (M-RoPE)"
    known = {"inputs_embeds", "position_ids", "attention_mask", *_HARMLESS}
    more = sorted(name for name, value in given.items() if name not in known and value is not None)
    return f"hands its decoder {', '.join(more)} beside the embeddings" if more else ""


@contextmanager
def _recording(
    model: Any, table: Tensor, features: Tensor, listed: bool
) -> Iterator[list[dict[str, Any]]]:
    """Let table and tower give these values, and note what the decoder is called with."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    calls: list[dict[str, Any]] = []

    def decode(**given: Any) -> Any:
        calls.append(given)
        return BaseModelOutputWithPast(last_hidden_state=given.get("inputs_embeds"))

    def look(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(pooler_output=list(features) if listed else features)

    inner = model.model
    with (
        _replaced(inner.language_model, "forward", decode),
        _replaced(model.get_input_embeddings(), "forward", lambda *_, **__: table),
        _replaced(inner, "get_image_features", look),
        torch.no_grad(),
    ):
        yield calls


@contextmanager
def _replaced(part: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """A method of one object replaced for a while."""
    before = vars(part).get(name)
    setattr(part, name, function)
    try:
        yield
    finally:
        delattr(part, name)
        if before is not None:
            setattr(part, name, before)
