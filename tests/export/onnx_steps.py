"""Generating with an exported ONNX decoder in stock onnxruntime, as a caller without effc would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

Arrays = dict[str, np.ndarray]


def session(path: Path) -> onnxruntime.InferenceSession:
    """A file in onnxruntime as installed: CPU, one thread, activations as the file says."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Products over DequantizeLinear would otherwise round their input to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Decoding:
    """Sequences that advance together over the cache that the model hands out.

    Args:
        path: the decoder.
        batch: B.
    """

    def __init__(self, path: Path, batch: int) -> None:
        self.session = session(path)
        self.mask = np.zeros((batch, 0), np.int64)
        self.past: Arrays = {}
        for spec in self.session.get_inputs()[2:]:
            kind = np.float16 if "float16" in spec.type else np.float32
            self.past[spec.name] = np.zeros((batch, spec.shape[1], 0, spec.shape[3]), kind)

    def feed(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Feed tokens `[B, T]`; logits `[B, T, V]`.

        Args:
            ids: the next tokens.
            mask: which of them are no padding; default: all.
        """
        fresh = torch.ones_like(ids) if mask is None else mask
        self.mask = np.concatenate([self.mask, fresh.numpy()], 1)
        given = {"input_ids": ids.numpy(), "attention_mask": self.mask, **self.past}
        names = [spec.name for spec in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(None, given), strict=True))
        logits = torch.from_numpy(results.pop("logits"))
        self.past = {k.replace("present", "past_key_values"): v for k, v in results.items()}
        return logits


def greedy(
    path: Path, ids: Tensor, new: int, pieces: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """The most likely continuation of prompts `[B, T]`, fed in pieces of these lengths and a rest.

    Returns:
        `[B, T + new]`, and the logits `[B, T + new - 1, V]` of all that was fed.
    """
    decoding = Decoding(path, ids.shape[0])
    parts = list(ids.split([*pieces, ids.shape[1] - sum(pieces)], 1))
    logits = [decoding.feed(part) for part in parts]
    result = ids
    for step in range(new):
        best = logits[-1][:, -1:].argmax(-1)
        result = torch.cat([result, best], 1)
        if step + 1 < new:
            logits.append(decoding.feed(best))
    return result, torch.cat(logits, 1)
