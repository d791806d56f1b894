"""Samples, refusals and meaning of `effc::quantized_embedding`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from effc.kernels.cases import Arguments, OpCases, Refusal, Sample
from effc.kernels.packing.cases import LAYOUTS, dequantized, packed_arguments
from effc.kernels.packing.group_affine import GroupAffine


def call(
    layout: GroupAffine = LAYOUTS["4-bit symmetric groups of 32"],
    ids: torch.Tensor | None = None,
    width: int = 100,
    dtype: torch.dtype = torch.float32,
    **changes: object,
) -> Arguments:
    """Arguments over a random table of 37 rows; `changes` replaces some of them."""
    arguments = packed_arguments(layout, 37, width)
    ids = torch.tensor([36, 0, 5, 5]) if ids is None else ids
    return arguments | {"ids": ids, "width": width, "dtype": dtype} | changes


def table(arguments: Arguments) -> np.ndarray:
    """The table that the planes stand for, float64 [rows, width]."""
    names = ("codes", "scale", "zero", "bits", "width")
    return dequantized(*(arguments[name] for name in names))


def exact(**arguments: Any) -> np.ndarray:
    """The rows in float64."""
    return table(arguments)[arguments["ids"].numpy()]


def eager(**arguments: Any) -> torch.Tensor:
    """`torch.nn.functional.embedding` of the table in the dtype asked for."""
    weight = torch.from_numpy(table(arguments)).to(arguments["dtype"])
    return torch.nn.functional.embedding(arguments["ids"], weight)


CASES = OpCases(
    op="quantized_embedding",
    samples=(
        *(Sample(name, partial(call, layout)) for name, layout in LAYOUTS.items()),
        Sample("float16", partial(call, dtype=torch.float16)),
        Sample("bfloat16", partial(call, dtype=torch.bfloat16)),
        Sample("batch of sequences", partial(call, ids=torch.arange(12).reshape(3, 4))),
        Sample("one id", partial(call, ids=torch.tensor(7))),
        Sample("no ids", partial(call, ids=torch.zeros(0, dtype=torch.int64))),
        Sample("strided ids", partial(call, ids=torch.arange(12).reshape(3, 4).T)),
        Sample("several blocks", partial(call, ids=torch.arange(600) % 37, width=2048)),
    ),
    refusals=(
        Refusal("an id past the end", partial(call, ids=torch.tensor([0, 37])), "id 37"),
        Refusal("a negative id", partial(call, ids=torch.tensor([-1])), "id -1"),
        Refusal("a scale per row", partial(call, scale=torch.ones(37, 1)), "plane 'scale'"),
        Refusal("16 bits", partial(call, bits=16), "bits = 16"),
    ),
    exact=exact,
    eager=eager,
    rows=("ids",),
)
