"""Samples, refusals and meaning of `effc::grouped_linear`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from effc.kernels.cases import Arguments, OpCases, Refusal, Sample
from effc.kernels.packing.cases import random_tensor

EXPERTS = 4


def call(
    expert_ids: tuple[int, ...] = (2, 0, 2, 3, 0),
    in_features: int = 33,
    out_features: int = 10,
    dtype: torch.dtype = torch.float32,
    transposed: bool = False,
    **changes: object,
) -> Arguments:
    """Arguments over random values and 4 experts; `changes` replaces some of them."""
    sizes = (in_features, out_features) if transposed else (out_features, in_features)
    return {
        "x": random_tensor(len(expert_ids), in_features).to(dtype),
        "weight": random_tensor(EXPERTS, *sizes, seed=1).to(dtype),
        "expert_ids": torch.tensor(expert_ids, dtype=torch.int64),
        "bias": random_tensor(EXPERTS, out_features, seed=2).to(dtype),
        "transposed": transposed,
    } | changes


def exact(**arguments: Any) -> np.ndarray:
    """One row after the other, in float64."""
    x, weight = (arguments[name].to(torch.float64).numpy() for name in ("x", "weight"))
    weight = weight.swapaxes(1, 2) if arguments["transposed"] else weight
    bias = arguments["bias"]
    bias = np.zeros(weight.shape[:2]) if bias is None else bias.to(torch.float64).numpy()
    ids = arguments["expert_ids"].tolist()
    rows = [weight[expert] @ row + bias[expert] for row, expert in zip(x, ids, strict=True)]
    return np.array(rows).reshape(len(ids), weight.shape[1])


def eager(**arguments: Any) -> torch.Tensor:
    """A gathered weight per row and one batched product."""
    weight = arguments["weight"][arguments["expert_ids"]]
    weight = weight.transpose(1, 2) if arguments["transposed"] else weight
    result = torch.bmm(weight, arguments["x"].unsqueeze(-1)).squeeze(-1)
    bias = arguments["bias"]
    return result if bias is None else result + bias[arguments["expert_ids"]]


CASES = OpCases(
    op="grouped_linear",
    samples=(
        Sample("float32", call),
        Sample("float16", partial(call, dtype=torch.float16)),
        Sample("bfloat16", partial(call, dtype=torch.bfloat16)),
        Sample("transposed", partial(call, transposed=True)),
        Sample("no bias", partial(call, bias=None)),
        Sample("one expert", partial(call, expert_ids=(1,) * 16)),
        Sample("more than 16 rows", partial(call, expert_ids=(3, 1) * 20)),
        Sample("no rows", partial(call, expert_ids=())),
        Sample("strided", partial(call, x=random_tensor(33, 5).T)),
        Sample("several blocks", partial(call, in_features=4096, out_features=300)),
    ),
    refusals=(
        Refusal("an expert past the end", partial(call, expert_ids=(0, 4)), "expert id 4"),
        Refusal("a negative expert", partial(call, expert_ids=(-1, 0)), "expert id -1"),
        Refusal("a width that is not x's", partial(call, x=torch.zeros(5, 32)), "[5, 32]"),
        Refusal("too few ids", partial(call, x=torch.zeros(6, 33)), "expert_ids [5]"),
    ),
    exact=exact,
    eager=eager,
    rows=("x", "expert_ids"),
)
