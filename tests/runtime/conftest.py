"""A tiny language model over the real operators, standing in for a compiled program.

Two layers: one keeps everything, one sees a sliding window and evicts. The same weights also run
without a cache, densely and in float64, as an independent opinion on every logit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx

import effc.kernels.paged.op as paged
from effc.ir.program import (
    CacheSite,
    ModelInfo,
    Program,
    RetentionGroup,
    ScheduleEntry,
    Stage,
)
from effc.ir.weights import Weights
from effc.kernels.paged.formats import page_format

V, W, H, H_KV, D, WINDOW, PAGE, CONTEXT = 31, 16, 4, 2, 4, 6, 4, 40
SCALE = D**-0.5


class TinyModel:
    """An executable written by hand.

    Attributes:
        calls: the batch size and number of columns of every call so far.
        interrupt_at: the call that raises KeyboardInterrupt, counting from 1.
    """

    def __init__(self, form: str = "fp32", functional: bool = False, **info: Any) -> None:
        g = torch.Generator().manual_seed(4)

        def weight(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g) * 2 / shape[-1] ** 0.5

        self.embedding, self.places = weight(V, W) * 2, weight(CONTEXT, W) * 2
        self.projections = [
            {"q": weight(H * D, W), "k": weight(H_KV * D, W), "v": weight(H_KV * D, W)}
            | {"o": weight(W, H * D)}
            for _ in range(2)
        ]
        self.head = weight(V, W)
        self.form, self.functional = form, functional
        self.calls: list[tuple[int, int]] = []
        self.interrupt_at: int | None = None
        known: dict[str, Any] = {"context": CONTEXT} | info
        self.program = _program(form, ModelInfo("tiny", "tiny", **known))

    def __call__(self, stage: str, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        assert stage == "decode"
        ids, positions, new_len = (inputs[name] for name in ("ids", "positions", "new_len"))
        self.calls.append((ids.shape[0], ids.shape[1]))
        if len(self.calls) == self.interrupt_at:
            raise KeyboardInterrupt
        outputs: dict[str, Tensor] = {"lengths": inputs["lengths"] + new_len}
        index = paged.token_index(inputs["lengths"], new_len, ids)
        x = self.embedding[ids] + self.places[positions]
        for layer, group in enumerate(self.program.groups):
            x = x + self._attention(x, layer, group, index, inputs, outputs)
        rows = paged.select_rows(x, inputs["logit_rows"])
        return outputs | {"logits": linear(rows, self.head)}

    def _attention(
        self,
        x: Tensor,
        layer: int,
        group: RetentionGroup,
        index: Tensor,
        inputs: Mapping[str, Any],
        outputs: dict[str, Tensor],
    ) -> Tensor:
        weights, caches = self.projections[layer], []
        slots = inputs[f"slots_{group.name}"]
        for kind in "kv":
            names = page_format(self.form).input_names(f"{kind}{layer}")
            planes = [inputs[name] for name in names]
            values = heads(linear(x, weights[kind]))
            if self.functional:
                planes = paged.cache_write(planes, values, slots, self.form)
                outputs |= dict(zip(names, planes, strict=True))
            else:
                paged.cache_write_(planes, values, slots, self.form)
            caches.append(planes)
        y = paged.attend(
            heads(linear(x, weights["q"])),
            *caches,
            self.form,
            self.form,
            inputs[f"table_{group.name}"],
            inputs.get(f"index_{group.name}"),
            index,
            inputs["lengths"],
            inputs["tree_mask"],
            True,
            group.window,
            None,
            SCALE,
            None,
            None,
        )
        return linear(y.transpose(1, 2).flatten(2), weights["o"])

    def dense(self, tokens: Sequence[int]) -> Tensor:
        """Logits `[T, V]` of one sequence without any cache, in float64."""
        T = len(tokens)
        x = (self.embedding[list(tokens)] + self.places[:T]).double()
        age = torch.arange(T)[:, None] - torch.arange(T)
        for weights, group in zip(self.projections, self.program.groups, strict=True):
            q, k, v = ((x @ weights[kind].double().T).view(T, -1, D) for kind in "qkv")
            k, v = (kv.repeat_interleave(H // H_KV, 1) for kv in (k, v))
            scores = torch.einsum("ihd,jhd->hij", q, k) * SCALE
            hidden = (age < 0) | (age >= (group.window or T))
            weight = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            y = torch.einsum("hij,jhd->ihd", weight, v).flatten(1)
            x = x + y @ weights["o"].double().T
        return x @ self.head.double().T

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The `count` most likely next tokens, one after the other."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.dense(tokens)[-1].argmax()))
        return tokens[len(prompt) :]


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """One matrix-vector product per row, so that rows cannot depend on each other."""
    rows = [torch.mv(weight, row.clone()) for row in x.flatten(0, -2)]
    return torch.stack(rows).view(*x.shape[:-1], -1)


def heads(x: Tensor) -> Tensor:
    """`[B, T, H * D]` as `[B, H, T, D]`."""
    return x.unflatten(-1, (-1, D)).transpose(1, 2)


def _program(form: str, info: ModelInfo) -> Program:
    groups = (RetentionGroup("full"), RetentionGroup("near", window=WINDOW, indexed=True))
    return Program(
        {"decode": Stage("decode", fx.Graph(), (), ())},
        Weights(),
        info,
        cache_sites=tuple(
            CacheSite(n, f"layers.{n}", n, H_KV, D, D, form, form, group.name)
            for n, group in enumerate(groups)
        ),
        groups=groups,
        schedule=(ScheduleEntry("each_step", "evict_window", {"group": "near"}),),
        page_size=PAGE,
        loop="autoregressive",
    )


@pytest.fixture
def tiny() -> Callable[..., TinyModel]:
    """Makes tiny models; all have the same weights."""
    return TinyModel


@pytest.fixture
def prompts() -> list[list[int]]:
    """Three prompts of different lengths, the longest longer than two prefill chunks."""
    g = torch.Generator().manual_seed(8)
    return [torch.randint(0, V, (n,), generator=g).tolist() for n in (3, 14, 9)]
