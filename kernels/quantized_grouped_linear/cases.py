"""Samples, refusals and meaning of `effc::quantized_grouped_linear`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from effc.kernels.cases import Arguments, OpCases, Refusal, Sample
from effc.kernels.grouped_linear import cases as grouped
from effc.kernels.packing.cases import LAYOUTS, packed_arguments, random_tensor
from effc.kernels.packing.group_affine import GroupAffine
from effc.kernels.quantized_linear.cases import matrix, met


def call(
    layout: GroupAffine = LAYOUTS["4-bit symmetric groups of 32"],
    expert_ids: tuple[int, ...] = (2, 0, 2, 3, 0),
    dtype: torch.dtype = torch.float32,
    activations: str = "source",
    **changes: object,
) -> Arguments:
    """Arguments over random values and 4 experts [10, 100]; `changes` replaces some of them."""
    arguments = packed_arguments(layout, grouped.EXPERTS, 10, 100)
    arguments |= {
        "x": random_tensor(len(expert_ids), 100).to(dtype),
        "expert_ids": torch.tensor(expert_ids, dtype=torch.int64),
        "bias": random_tensor(grouped.EXPERTS, 10, seed=2).to(dtype),
        "in_features": 100,
        "activations": activations,
    }
    return arguments | changes


def dense(arguments: Arguments) -> Arguments:
    """The arguments of `grouped_linear` over what the planes stand for, in float64."""
    x = met(arguments["x"], arguments["group"], arguments["activations"])
    return {
        "x": torch.from_numpy(x),
        "weight": torch.from_numpy(matrix(arguments)),
        "expert_ids": arguments["expert_ids"],
        "bias": arguments["bias"],
        "transposed": False,
    }


def exact(**arguments: Any) -> np.ndarray:
    """One row after the other, in float64."""
    return grouped.exact(**dense(arguments))


def eager(**arguments: Any) -> torch.Tensor:
    """A gathered weight per row and one batched product, in the precision of x."""
    low = dense(arguments)
    low |= {name: low[name].to(arguments["x"].dtype) for name in ("x", "weight")}
    return grouped.eager(**low)


CASES = OpCases(
    op="quantized_grouped_linear",
    samples=(
        *(Sample(name, partial(call, layout)) for name, layout in LAYOUTS.items()),
        Sample("int8 inputs", partial(call, activations="int8")),
        Sample("float16", partial(call, dtype=torch.float16)),
        Sample("bfloat16", partial(call, dtype=torch.bfloat16)),
        Sample("no bias", partial(call, bias=None)),
        Sample("one expert", partial(call, expert_ids=(1,) * 16)),
        Sample("more than 16 rows", partial(call, expert_ids=(3, 1) * 20)),
        Sample("no rows", partial(call, expert_ids=())),
        Sample("strided", partial(call, x=random_tensor(100, 5).T)),
    ),
    refusals=(
        Refusal("an expert past the end", partial(call, expert_ids=(0, 4)), "expert id 4"),
        Refusal("too few ids", partial(call, x=torch.zeros(6, 100)), "expert_ids [5]"),
        Refusal("unknown inputs", partial(call, activations="int4"), "'int4'; allowed: source"),
    ),
    exact=exact,
    eager=eager,
    rows=("x", "expert_ids"),
)
