"""torch.onnx exports of transformers models, with and without a cache, under the usual names."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from examples.onnx_exports.models import DECODER, VISION, Model

BATCH, SEQUENCE, PAST, TOTAL = "batch", "sequence", "past_sequence", "total_sequence"


class Named(torch.nn.Module):
    """A model whose results are tensors in a fixed order.

    Attributes:
        inputs: what its `forward` is called with, in order.
        outputs: which of the results are kept.
    """

    def __init__(self, model: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The library's call with these inputs by name."""
        options = {"use_cache": False} if self.outputs == ("logits",) else {}
        results = self.model(**dict(zip(self.inputs, values, strict=True)), **options)
        return tuple(results[name] for name in self.outputs)


class Cached(torch.nn.Module):
    """A decoder with its cache as plain tensors: keys and values of each layer in turn."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Logits [B, T, V], then keys and values [B, H_kv, S + T, D] of each layer."""
        from transformers import DynamicCache

        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        named = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
        if "position_ids" in _parameters(self.model):
            named["position_ids"] = positions
        results = self.model(**named, use_cache=True)
        layers = results.past_key_values.layers
        return results.logits, *(t for layer in layers for t in (layer.keys, layer.values))


def export_module(model: Model, checkpoint: Path, file: Path, opset: int) -> None:
    """Write the module as it stands; batch and length are free, images have a fixed size."""
    module = load(model, checkpoint)
    inputs, values, shapes = _inputs(model, module)
    with torch.no_grad():
        results = module(**dict(zip(inputs, values, strict=True)))
    outputs = tuple(name for name, value in results.items() if isinstance(value, torch.Tensor))
    if model.kind == DECODER:
        outputs = ("logits",)
    _export(Named(module, inputs, outputs), values, file, opset, inputs, outputs, (shapes,))


def export_with_cache(model: Model, checkpoint: Path, file: Path, opset: int) -> None:
    """Write a decoder as onnxruntime's users know it: past and present of every layer."""
    module = load(model, checkpoint)
    batch, new, held = 2, 3, 5
    ids = torch.randint(5, module.config.vocab_size, (batch, held + new))
    with torch.no_grad():
        layers = module(ids[:, :held], use_cache=True).past_key_values.layers
    past = tuple(tensor for layer in layers for tensor in (layer.keys, layer.values))
    positions = torch.arange(held, held + new).expand(batch, new).clone()
    values = (ids[:, held:], torch.ones(batch, held + new, dtype=torch.long), positions, *past)
    kinds = [f"{i}.{what}" for i in range(len(layers)) for what in ("key", "value")]
    inputs = ("input_ids", "attention_mask", "position_ids")
    inputs += tuple(f"past_key_values.{kind}" for kind in kinds)
    outputs = ("logits", *(f"present.{kind}" for kind in kinds))
    tokens = {0: BATCH, 1: SEQUENCE}
    cache = tuple({0: BATCH, 2: PAST} for _ in past)
    shapes = (tokens, {0: BATCH, 1: TOTAL}, tokens, cache)
    _export(Cached(module), values, file, opset, inputs, outputs, shapes)


def load(model: Model, checkpoint: Path) -> Any:
    """The checkpoint as the library reads it, fp32."""
    import transformers

    # Grouped products over experts have no ONNX translation, batched ones do.
    experts = (
        {"experts_implementation": "batched_mm"} if "num_experts_per_tok" in model.options else {}
    )
    cls = getattr(transformers, model.cls)
    return cls.from_pretrained(checkpoint, dtype=torch.float32, **experts).eval()


def _inputs(model: Model, module: Any) -> tuple[tuple[str, ...], tuple[torch.Tensor, ...], Any]:
    if model.kind == VISION:
        size = module.config.image_size if hasattr(module.config, "image_size") else 32
        return ("pixel_values",), (torch.randn(2, 3, size, size),), ({0: BATCH},)
    ids = torch.randint(5, module.config.vocab_size, (2, 7))
    mask, tokens = torch.ones_like(ids), {0: BATCH, 1: SEQUENCE}
    return ("input_ids", "attention_mask"), (ids, mask), (tokens, tokens)


def _parameters(module: Any) -> set[str]:
    import inspect

    return set(inspect.signature(module.forward).parameters)


def _export(
    module: torch.nn.Module,
    values: tuple[torch.Tensor, ...],
    file: Path,
    opset: int,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    shapes: Any,
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            values,
            file,
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
