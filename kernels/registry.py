"""Operators and the kernels that implement them.

`define` registers one `effc::` operator with PyTorch: schema, fake (shape) function and the
reference, which is the default implementation, so every program runs everywhere.
`KERNELS` is the table of faster implementations; selection happens at compile time
(`effc.passes.lowering.select_kernels`), is recorded on the node, and never falls back silently.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

LIBRARY = torch.library.Library("effc", "DEF")

REFERENCE = "reference"


def define(
    schema: str, reference: Callable[..., object], fake: Callable[..., object]
) -> torch._ops.OpOverload:
    """Register operator `effc::<schema>` and return its overload.

    Args:
        schema: without the namespace, e.g. `"rope(Tensor x, Tensor cos) -> Tensor"`.
        reference: plain torch, the meaning of the operator on every device.
        fake: the shape function, called with fake tensors.
    """
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"effc::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.effc, name).default


@dataclass(frozen=True)
class Support:
    """Whether a kernel can serve a call, and why not."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class KernelEntry:
    """One implementation of an operator for one kind of device.

    Attributes:
        op: operator name without the namespace.
        name: the implementation's name, e.g. "triton".
        device: "cpu" or "cuda".
        location: "module:function", imported only when the kernel is chosen.
        supports: "module:function" taking (arguments by name as fake values, target) and
            returning `Support`; None supports every call.
        priority: the highest supported one wins; the reference has 0.
    """

    op: str
    name: str
    device: str
    location: str
    supports: str | None = None
    priority: int = 10

    def load(self) -> Callable[..., object]:
        """Import the implementation."""
        return _import(self.location)

    def check(self, arguments: dict[str, object], target: object) -> Support:
        """Ask the kernel whether it can serve a call with these arguments."""
        if self.supports is None:
            return Support(True)
        answer = _import(self.supports)(arguments, target)
        if not isinstance(answer, Support):
            raise TypeError(f"{self.supports} must return Support, got {type(answer).__name__}")
        return answer


def _import(location: str) -> Callable[..., object]:
    module, _, function = location.partition(":")
    return getattr(importlib.import_module(module), function)


KERNELS: tuple[KernelEntry, ...] = (
    KernelEntry(
        op="quantized_linear",
        name="triton",
        device="cuda",
        location="effc.kernels.quantized_linear.triton:quantized_linear",
        supports="effc.kernels.quantized_linear.triton:supports",
    ),
)


def candidates(op: str, device: str) -> list[KernelEntry]:
    """The registered kernels for an operator on a device, best first."""
    found = [entry for entry in KERNELS if entry.op == op and entry.device == device]
    return sorted(found, key=lambda entry: -entry.priority)


def resolve(op: str, kernel: str, device: str) -> Callable[..., object]:
    """The callable of a recorded choice: the operator itself for the reference."""
    if kernel == REFERENCE:
        return getattr(torch.ops.effc, op).default
    for entry in candidates(op, device):
        if entry.name == kernel:
            return entry.load()
    raise KeyError(f"no kernel {kernel!r} for effc::{op} on {device}")
