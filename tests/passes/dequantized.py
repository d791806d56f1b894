"""Cases of `raise-dequantized-linear`: products and look-ups of weights that others quantized."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from effc.ir.program import Program
from effc.passes.raising.quantized_linear import RaiseQuantizedLinear
from tests.passes.case import PassCase, of_module, values
from tests.passes.near import RENAMED, Near, NearMisses, one_liner, program
from tests.programs import capture

LOCATION = "effc.passes.raising.quantized_linear:RaiseQuantizedLinear"

aten = torch.ops.aten


def levels(*shape: int, low: int = -128, high: int = 127, seed: int = 0) -> Tensor:
    """Random integers, both ends among them."""
    made = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed))
    made.view(-1)[:2] = torch.tensor([low, high])
    return made.to(torch.int8 if low < 0 else torch.uint8)


class Stored(nn.Module):
    """A module of one function of x and of tensors of the state.

    Args:
        function: (x, *state) -> result.
        state: integers, scales and zero points.
    """

    def __init__(self, function: Callable[..., Tensor], *state: Tensor) -> None:
        super().__init__()
        self.function, self.count = function, len(state)
        for index, tensor in enumerate(state):
            self.register_buffer(f"s{index}", tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *(getattr(self, f"s{i}") for i in range(self.count)))


def product(x: Tensor, w: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Per output: w [in, out], scale and zero [1, out]."""
    return x @ ((w.float() - zero) * scale)


def renamed(inputs: Tensor, kernel: Tensor, steps: Tensor, origin: Tensor) -> Tensor:
    centered = kernel.float() - origin
    weight = centered * steps
    return inputs @ weight


def plain(x: Tensor, w: Tensor, scale: Tensor) -> Tensor:
    """Without zero points."""
    return x @ (w.float() * scale)


def turned(x: Tensor, w: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """w [out, in], scale and zero [out, 1]."""
    return x @ ((w.float() - zero) * scale).t()


def blocks(x: Tensor, w: Tensor, scale: Tensor, zero: Tensor, block: int = 16) -> Tensor:
    """w [in, out], scale and zero [in / block, out]."""
    steps, origins = (part.repeat_interleave(block, 0)[: len(w)] for part in (scale, zero))
    return x @ ((w.float() - origins) * steps)


def looked_up(x: Tensor, w: Tensor, scale: Tensor) -> Tensor:
    """Rows of w [rows, width], scale [rows, 1]."""
    return (w.float() * scale)[x]


def per_input(x: Tensor, w: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return x @ ((w.float() - zero.t()) * scale.t())


def small_blocks(x: Tensor, w: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return blocks(x, w, scale, zero, 8)


def computed_scale(x: Tensor, w: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return x @ ((w.float() - zero) * (scale * x.sum()))


def fractional_zero(x: Tensor, w: Tensor, scale: Tensor) -> Tensor:
    return x @ ((w.float() - 0.5) * scale)


STEPS = values(1, 8).abs() / 100


def stored(
    function: Callable[..., Tensor], *state: Tensor, width: int = 8
) -> Callable[[], Program]:
    """Captures the function of x [3, width] and the state."""
    return lambda: capture(Stored(function, *state), values(3, width))


class Every(nn.Module):
    """Each form once."""

    def __init__(self) -> None:
        super().__init__()
        scale, zero = values(1, 6).abs() / 100, levels(1, 6, seed=1)
        block_scale, block_zero = values(3, 6).abs() / 100, levels(3, 6, low=0, high=15, seed=2)
        self.product = Stored(product, levels(40, 6), scale, zero)
        self.plain = Stored(plain, levels(40, 6, low=-8, high=7), scale)
        self.turned = Stored(turned, levels(6, 40), scale.t(), zero.t())
        self.blocks = Stored(blocks, levels(40, 6, low=0, high=15), block_scale, block_zero)
        self.table = Stored(looked_up, levels(9, 40), values(9, 1) / 100)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.product(x) + self.plain(x) + self.turned(x) + self.blocks(x)


DEQUANTIZED: tuple[PassCase, ...] = (
    PassCase(
        LOCATION,
        RaiseQuantizedLinear,
        **of_module(Every, ids=torch.tensor([[8, 0, 3], [1, 1, 5]])),
        applied=5,
    ),
)

SQUARE = (levels(8, 8), STEPS, levels(1, 8, seed=1))

NEAR_DEQUANTIZED: tuple[NearMisses, ...] = (
    NearMisses(
        LOCATION,
        RaiseQuantizedLinear,
        program(one_liner),
        (
            Near("renamed", stored(renamed, *SQUARE), RENAMED),
            Near("a scale per input", stored(per_input, *SQUARE), "a value for every input"),
            Near(
                "blocks of 8",
                stored(small_blocks, levels(16, 8), *(STEPS.expand(2, 8), levels(2, 8)), width=16),
                "a block of 8 inputs",
            ),
            Near("a computed scale", stored(computed_scale, *SQUARE), "computed at run time"),
            Near("a zero of 0.5", stored(fractional_zero, *SQUARE[:2]), "the zero point 0.5"),
            Near(
                "integers of 32 bits",
                stored(plain, levels(8, 8).int(), STEPS),
                "no 8-bit integers",
            ),
        ),
    ),
)
