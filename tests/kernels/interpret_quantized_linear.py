"""Run the Triton kernel of `effc::quantized_linear` in Triton's interpreter; print JSON.

A process of its own, since the interpreter is chosen when Triton is first imported:
`TRITON_INTERPRET=1 python tests/kernels/interpret_quantized_linear.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder

from effc.kernels.cases import Arguments, excess
from effc.kernels.packing.group_affine import GroupAffine
from effc.kernels.quantized_linear import cases
from effc.kernels.quantized_linear.triton import quantized_linear

# Groups smaller than, larger than and unequal to a step of the kernel along the input features.
LAYOUTS = [GroupAffine(*choice) for choice in product((2, 3, 4, 8), (16, 256, None), (True, False))]
SHAPES = ((1, 33, 100), (5, 40, 257))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def read_bfloat16_in_dot() -> None:
    """Triton 3.6 to 3.9 interpret `tl.dot` on the bit patterns of bfloat16, not on its values."""
    create_dot = InterpreterBuilder.create_dot

    def widened(handle: object) -> object:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        patterns = handle.data.astype(np.uint32) << 16
        return type(handle)(patterns.view(np.float32), tl.float32)

    def corrected(self: object, a: object, b: object, *rest: object) -> object:
        return create_dot(self, widened(a), widened(b), *rest)

    InterpreterBuilder.create_dot = corrected


def calls() -> Iterator[tuple[str, Arguments]]:
    for layout, (rows, out, columns), dtype in product(LAYOUTS, SHAPES, DTYPES):
        name = f"{layout} [{rows}, {columns}] x [{columns}, {out}] {dtype}"
        yield name, cases.call(layout, (rows, columns), out, dtype)
    for sample in cases.CASES.samples:
        arguments = sample.make()
        if arguments["activations"] == "source" and arguments["x"].dtype in DTYPES:
            yield sample.name, arguments


def run(arguments: Arguments) -> float:
    """The excess over the tolerance, NaN where part of the result was not written."""
    empty = torch.empty
    torch.empty = lambda *args, **options: empty(*args, **options).fill_(torch.nan)
    result = quantized_linear(**arguments)
    torch.empty = empty
    return excess(result, cases.exact(**arguments), cases.eager(**arguments))


def changed_rows() -> int:
    """Rows of a batch of 7 that differ in any bit from the same row alone."""
    arguments = cases.call(shape=(7, 200), out_features=40)
    together = quantized_linear(**arguments)
    alone = [quantized_linear(**arguments | {"x": row[None]})[0] for row in arguments["x"]]
    return sum(not torch.equal(*pair) for pair in zip(together, alone, strict=True))


def one_code_off() -> float:
    """The excess when one code of the weight is wrong: must be seen."""
    arguments = cases.call()
    exact, eager = cases.exact(**arguments), cases.eager(**arguments)
    arguments["codes"][7, 3] ^= 1
    return excess(quantized_linear(**arguments), exact, eager)


def main() -> None:
    read_bfloat16_in_dot()
    report = {
        "excess": {name: run(arguments) for name, arguments in calls()},
        "changed_rows": changed_rows(),
        "one_code_off": one_code_off(),
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
