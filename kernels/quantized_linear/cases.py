"""Samples, refusals and meaning of `effc::quantized_linear`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from effc.kernels.cases import Arguments, OpCases, Refusal, Sample
from effc.kernels.packing.cases import LAYOUTS, dequantized, packed_arguments, random_tensor
from effc.kernels.packing.group_affine import GroupAffine


def call(
    layout: GroupAffine = LAYOUTS["4-bit symmetric groups of 32"],
    shape: tuple[int, ...] = (3, 100),
    out_features: int = 33,
    dtype: torch.dtype = torch.float32,
    activations: str = "source",
    **changes: object,
) -> Arguments:
    """Arguments over random values; `changes` replaces some of them."""
    in_features = shape[-1]
    arguments = packed_arguments(layout, out_features, in_features)
    arguments |= {
        "x": random_tensor(*shape).to(dtype),
        "bias": random_tensor(out_features, seed=2).to(dtype),
        "in_features": in_features,
        "activations": activations,
    }
    return arguments | changes


def strided() -> Arguments:
    """Inputs and planes that are views with gaps."""
    arguments = call(shape=(5, 64), out_features=12)
    arguments["x"] = random_tensor(64, 5).T
    for plane in ("codes", "scale"):
        arguments[plane] = arguments[plane].repeat_interleave(2, dim=1)[:, ::2]
    return arguments


def matrix(arguments: Arguments) -> np.ndarray:
    """The weight that the planes stand for, float64 [out, in]."""
    names = ("codes", "scale", "zero", "bits", "in_features")
    return dequantized(*(arguments[name] for name in names))


def met(x: torch.Tensor, group: int, activations: str) -> np.ndarray:
    """The input as the weight meets it; steps are found in float32, as the operator promises."""
    values = x.to(torch.float64).numpy()
    if activations == "source":
        return values
    values = values.astype(np.float32)
    for start in range(0, values.shape[-1], group):
        part = values[..., start : start + group]
        absmax = np.abs(part).max(-1, keepdims=True)
        inverse = np.divide(np.float32(127), absmax, where=absmax > 0, out=np.zeros_like(absmax))
        part[...] = np.rint(part * inverse) * (absmax / np.float32(127))
    return values.astype(np.float64)


def exact(**arguments: Any) -> np.ndarray:
    """The product in float64."""
    x = met(arguments["x"], arguments["group"], arguments["activations"])
    result = x @ matrix(arguments).T
    bias = arguments["bias"]
    return result if bias is None else result + bias.to(torch.float64).numpy()


def eager(**arguments: Any) -> torch.Tensor:
    """`torch.nn.functional.linear` with the weight in the precision of x."""
    x = arguments["x"]
    rows = torch.from_numpy(met(x, arguments["group"], arguments["activations"])).to(x.dtype)
    weight = torch.from_numpy(matrix(arguments)).to(x.dtype)
    return torch.nn.functional.linear(rows, weight, arguments["bias"])


CASES = OpCases(
    op="quantized_linear",
    samples=(
        *(Sample(name, partial(call, layout)) for name, layout in LAYOUTS.items()),
        *(
            Sample(f"int8 inputs, {name}", partial(call, layout, activations="int8"))
            for name, layout in LAYOUTS.items()
        ),
        Sample("float16", partial(call, dtype=torch.float16)),
        Sample("bfloat16", partial(call, dtype=torch.bfloat16)),
        Sample("bfloat16, int8 inputs", partial(call, dtype=torch.bfloat16, activations="int8")),
        Sample("float64", partial(call, dtype=torch.float64)),
        Sample("vector", partial(call, shape=(100,))),
        Sample("batch of sequences", partial(call, shape=(2, 3, 64))),
        Sample("no bias", partial(call, bias=None)),
        Sample("16 rows", partial(call, shape=(16, 257))),
        Sample("17 rows", partial(call, shape=(17, 257))),
        Sample("no rows", partial(call, shape=(0, 32))),
        Sample("one output", partial(call, out_features=1)),
        Sample("one input", partial(call, shape=(2, 1), out_features=3)),
        Sample("zero rows, int8 inputs", partial(call, x=torch.zeros(2, 100), activations="int8")),
        Sample("several blocks", partial(call, shape=(2, 4096), out_features=300)),
        Sample("strided", strided),
    ),
    refusals=(
        Refusal("5 bits", partial(call, bits=5), "bits = 5"),
        Refusal("a group of 24", partial(call, group=24), "group = 24"),
        Refusal("another group", partial(call, group=64), "plane 'scale'"),
        Refusal("a width that is not x's", partial(call, x=torch.zeros(3, 99)), "[3, 99]"),
        Refusal("integers", partial(call, x=torch.zeros(3, 100, dtype=torch.int64)), "int64"),
        Refusal("unknown inputs", partial(call, activations="int4"), "'int4'; allowed: source"),
        Refusal(
            "a bfloat16 scale",
            partial(call, scale=torch.ones(33, 4, dtype=torch.bfloat16)),
            "plane 'scale'",
        ),
    ),
    exact=exact,
    eager=eager,
    rows=("x",),
)
