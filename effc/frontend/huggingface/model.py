"""The library's model for a configuration, and which models cannot be continued with a cache."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from effc.diagnostics import ModelError
from effc.frontend.huggingface import interfaces


def is_causal_language_model(config: Any) -> bool:
    """Whether the library has a causal language model for a configuration; it may see as well."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING


def decoder_class(config: Any, folder: Path) -> Any:
    """The library's causal language model for a configuration.

    Raises:
        ModelError: E0302 if there is none.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if not is_causal_language_model(config):
        raise ModelError(
            "E0302",
            f"{type(config).__name__} has no causal language model in transformers",
            where=str(folder),
            help="effc takes encoders and decoder-only language models from Hugging Face folders",
        )
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def empty_model(
    cls: Any, config: Any, dtype: torch.dtype, folder: Path, attention: str, **options: Any
) -> Any:
    """The model's modules with real buffers and parameters whose memory is never touched.

    Args:
        cls: the library's class.
        config: its configuration.
        dtype: of the parameters.
        folder: for messages.
        attention: the name of the attention implementation.
        options: further arguments of the class.

    Raises:
        ModelError: E0302 when the class cannot be built this way.
    """
    from transformers.initialization import no_init_weights

    interfaces.register()
    try:
        with no_init_weights():
            model = cls._from_config(
                config,
                dtype=dtype,
                attn_implementation=attention,
                experts_implementation=interfaces.NAME,
                **options,
            )
        model.tie_weights()
    except KeyError as error:
        if error.args != (attention,):
            raise _unbuilt(cls, error, folder) from error
        raise ModelError(
            "E0302",
            f"{cls.__name__} chooses among attention classes of its own, where no other can be "
            "registered",
            where=str(folder),
            help="effc takes models that use the library's attention interface",
        ) from error
    except Exception as error:
        raise _unbuilt(cls, error, folder) from error
    return model.eval()


def _unbuilt(cls: type, error: Exception, folder: Path) -> ModelError:
    reason = next(iter(str(error).strip().splitlines()), "")
    return ModelError(
        "E0302",
        f"{cls.__name__} cannot be built from its configuration ({type(error).__name__}: {reason})",
        where=str(folder),
    )


def refuse_uncacheable(model: Any, place: str) -> None:
    """Models whose keys would go stale in a cache, or that cannot be told where a token stands.

    Raises:
        ModelError: E0302.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise ModelError(
            "E0302",
            f"{type(model).__name__} takes no position_ids: it is recurrent, or counts its tokens "
            "itself, so that it cannot be continued with a cache of keys and values",
            where=place,
            help="effc needs models whose positions are an input (rotary or learned)",
        )
    if any(hasattr(part, "create_position_ids_from_input_ids") for part in model.modules()):
        raise ModelError(
            "E0302",
            f"{type(model).__name__} counts positions from its padding token on, except where it "
            "generates: the library disagrees with itself about what the model says",
            where=place,
            help="effc needs models whose positions count from 0",
        )
    refuse_growing_angles(model.config, place)


def refuse_growing_angles(config: Any, place: str) -> None:
    """Rotary angles that depend on the length of the whole sequence.

    Raises:
        ModelError: E0302.
    """
    config = config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [value for value in parameters.values() if isinstance(value, dict)]
    for entry in by_layer_type or [parameters]:
        kind = entry.get("rope_type", "default")
        if kind in ("dynamic", "longrope"):
            raise ModelError(
                "E0302",
                f"rope scaling {kind!r} changes all angles with the length of the sequence, "
                "so keys in a cache would go stale",
                where=place,
                help="use a checkpoint with linear, yarn or llama3 scaling",
            )
