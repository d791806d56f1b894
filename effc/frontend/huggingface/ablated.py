"""Greedy answers of a model that loses, at random, a part of what it has read.

The context is read, the cache is damaged, the question is read, the answer is given. What stays
keeps its position. Rows of a batch are padded at the left of each of these pieces, so that the
cache has holes, which the mask covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effc.diagnostics import EffcError
from effc.evaluate.ablation import RANDOM_IMAGE, RANDOM_KV, Ablation
from effc.evaluate.answering import Prompt
from effc.ir.program import ModelInfo

Pixels = Callable[[Sequence[Any]], dict[str, Tensor]]
"""Images to the keyword arguments in which the library's model takes them."""


def continue_ablated(
    model: Any,
    info: ModelInfo,
    prompts: Sequence[Prompt],
    new_tokens: int,
    ablation: Ablation,
    pixels: Pixels,
) -> list[list[int]]:
    """The continuation of each prompt, at most `new_tokens` long, eos included.

    Args:
        model: of transformers, in evaluation mode.
        info: facts about it.
        prompts: B of them; at least the last token of each belongs to its question.
        new_tokens: most tokens of an answer.
        ablation: what is taken away.
        pixels: prepares images.

    Raises:
        EffcError: E0414, the model has nothing that could be taken away so.
    """
    reading = _Reading(model, info, len(prompts))
    generators = [ablation.generator(prompt.index) for prompt in prompts]
    seen = [[True] * len(prompt.ids) for prompt in prompts]
    if ablation.kind == RANDOM_IMAGE:
        seen = [
            _without_images(prompt, info, ablation, generator)
            for prompt, generator in zip(prompts, generators, strict=True)
        ]
    splits = [min(prompt.context, len(prompt.ids) - 1) for prompt in prompts]
    pieces = list(zip(prompts, seen, splits, strict=True))
    if any(splits):
        images = [x for p, s in zip(prompts, splits, strict=True) for x in _images(p, info, s)[0]]
        reading.read(
            [p.ids[:s] for p, _, s in pieces], [k[:s] for _, k, s in pieces], pixels(images)
        )
        if ablation.kind == RANDOM_KV:
            reading.evict(ablation, generators)
    images = [x for p, s in zip(prompts, splits, strict=True) for x in _images(p, info, s)[1]]
    logits = reading.read(
        [p.ids[s:] for p, _, s in pieces], [k[s:] for _, k, s in pieces], pixels(images)
    )
    return reading.answer(logits, new_tokens)


class _Reading:
    """B sequences that a model reads piece by piece, and what it still sees of them."""

    def __init__(self, model: Any, info: ModelInfo, rows: int) -> None:
        from transformers import DynamicCache

        self.model = model
        self.info = info
        self.cache = DynamicCache(config=model.config.get_text_config())
        self.mask = torch.zeros(rows, 0, dtype=torch.int64)  # [B, S], S cached tokens
        self.next = torch.zeros(rows, 1, dtype=torch.int64)  # the position of the next token

    def read(
        self,
        rows: Sequence[Sequence[int]],
        seen: Sequence[Sequence[bool]],
        images: dict[str, Tensor],
    ) -> Tensor:
        """Logits [B, V] after the last token of each row; no token of an empty row is seen.

        Args:
            rows: the next tokens of each sequence.
            seen: whether later tokens see them.
            images: those of all rows, as the model takes them.
        """
        T, pad = max(map(len, rows)), self.info.eos[0]
        ids = torch.tensor([[pad] * (T - len(row)) + [*row] for row in rows])
        real = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])
        visible = torch.tensor([[0] * (T - len(row)) + [*map(int, row)] for row in seen])
        positions = (self.next + real.cumsum(1) - 1).clamp(min=0)
        self.mask = torch.cat([self.mask, visible], dim=1)
        self.next = self.next + real.sum(1, keepdim=True)
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **images,
        )
        return out.logits[:, -1]

    def evict(self, ablation: Ablation, generators: Sequence[np.random.Generator]) -> None:
        """Keep a random choice of the cached tokens, another one in each layer and KV head."""
        from transformers.cache_utils import DynamicLayer

        layers: list[Any] = self.cache.layers
        other = next((layer for layer in layers if type(layer) is not DynamicLayer), None)
        if other is not None:
            raise EffcError(
                "E0414",
                f"{ablation.kind} needs layers that attend to all cached tokens; the cache of this "
                f"model has a {type(other).__name__}",
                where=self.info.source,
                help=f"use --ablate {RANDOM_IMAGE}, or another model",
            )
        S, lengths = self.mask.shape[1], self.mask.sum(1).tolist()
        counts = [ablation.kept(n) for n in lengths]
        K = max(counts)
        for layer in layers:
            heads = layer.keys.shape[1]
            index = np.zeros((len(lengths), heads, K), dtype=np.int64)
            for b, (n, k, generator) in enumerate(zip(lengths, counts, generators, strict=True)):
                for h in range(heads):
                    index[b, h, K - k :] = S - n + ablation.choose(n, generator)
            place = torch.from_numpy(index)[..., None]
            for name in ("keys", "values"):
                plane = getattr(layer, name)  # [B, H_kv, S, D]
                kept = plane.gather(2, place.expand(-1, -1, -1, plane.shape[3]))
                setattr(layer, name, kept)
        self.mask = torch.tensor([[0] * (K - k) + [1] * k for k in counts]).view(len(counts), K)

    def answer(self, logits: Tensor, new_tokens: int) -> list[list[int]]:
        """Greedy tokens of each row, up to its eos."""
        answers: list[list[int]] = [[] for _ in logits]
        for left in reversed(range(new_tokens)):
            chosen = logits.float().argmax(-1).tolist()
            for answer, token in zip(answers, chosen, strict=True):
                if not self._ended(answer):
                    answer.append(token)
            if not left or all(map(self._ended, answers)):
                break
            logits = self.read([[token] for token in chosen], [[True]] * len(chosen), {})
        return answers

    def _ended(self, answer: Sequence[int]) -> bool:
        return bool(answer) and answer[-1] in self.info.eos


def _without_images(
    prompt: Prompt, info: ModelInfo, ablation: Ablation, generator: np.random.Generator
) -> list[bool]:
    """Which tokens of a prompt later ones see, when some of its visual tokens are taken away.

    Raises:
        EffcError: E0414, there are none.
    """
    visual = [place for place, token in enumerate(prompt.ids) if token == info.image_token]
    if not visual:
        raise EffcError(
            "E0414",
            f"{ablation.kind} takes visual tokens away, and the task shows no images",
            where=info.source,
            help="name a task with images",
        )
    kept = {visual[i] for i in ablation.choose(len(visual), generator)}
    gone = set(visual) - kept
    return [place not in gone for place in range(len(prompt.ids))]


def _images(prompt: Prompt, info: ModelInfo, split: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """The images in the first `split` tokens of a prompt, and those after them."""
    before = prompt.ids[:split].count(info.image_token) if info.image_token is not None else 0
    first = before // (info.image_tokens or 1)
    return prompt.images[:first], prompt.images[first:]
