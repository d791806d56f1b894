"""`effc.optimize` on modules that are no language models: a callable that behaves like them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effc
from effc.diagnostics import GenerationError, ModelError


class Conv(nn.Module):
    """Convolutions, batch norm, pooling, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@dataclass
class Pair:
    """Two results."""

    first: Tensor
    second: Tensor


class Forms(nn.Module):
    """Two inputs, and results in the form asked for."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.inner = nn.Linear(6, 4)

    def forward(self, x: Tensor, scale: Tensor) -> Any:
        a, b = self.inner(x) * scale, x.sum(-1, keepdim=True)
        return {
            "tensor": a,
            "tuple": (a, b),
            "list": [a, b],
            "dict": {"first": a, "second": b},
            "one": (a,),
        }[self.form]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).eval()


@pytest.mark.parametrize("batch", (1, 2, 5, 9))
def test_an_mlp_at_any_batch(batch: int) -> None:
    module = mlp()
    fast = effc.optimize(module, example_inputs=(torch.randn(3, 6),))
    x = torch.randn(batch, 6)
    torch.testing.assert_close(fast(x), module(x))


def test_a_conv_net() -> None:
    module = Conv()
    module(torch.randn(8, 3, 16, 16))  # statistics of the batch norm are no identity
    module.eval()
    fast = effc.optimize(module, example_inputs=torch.randn(2, 3, 16, 16))
    for batch in (1, 4):
        x = torch.randn(batch, 3, 16, 16)
        torch.testing.assert_close(fast(x), module(x))
    x = torch.randn(2, 16, 16, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(fast(x), module(x))


@pytest.mark.parametrize("form", ("tensor", "tuple", "list", "dict", "one"))
def test_results_keep_their_form(form: str) -> None:
    """A list comes back as a tuple, a dictionary as an object with its keys as names."""
    module = Forms(form).eval()
    fast = effc.optimize(module, example_inputs=(torch.randn(3, 6), torch.randn(3, 4)))
    x, scale = torch.randn(2, 6), torch.randn(2, 4)
    found, expected = fast(x, scale), module(x, scale)
    if form == "tensor":
        torch.testing.assert_close(found, expected)
    elif form == "dict":
        torch.testing.assert_close(vars(found), expected)
    else:
        assert isinstance(found, tuple)
        torch.testing.assert_close(found, tuple(expected))


def test_inputs_by_name_in_any_order() -> None:
    module = Forms("tensor").eval()
    fast = effc.optimize(
        module, example_inputs={"scale": torch.randn(3, 4), "x": torch.randn(3, 6)}
    )
    x, scale = torch.randn(2, 6), torch.randn(2, 4)
    torch.testing.assert_close(fast(scale=scale, x=x), module(x, scale))
    torch.testing.assert_close(fast(x=x, scale=scale), module(x, scale))


@pytest.mark.parametrize("call", ("()", "(x)", "(x, x, x)", "(x, other=x)", "(x, x, scale=x)"))
def test_a_wrong_call_names_the_inputs(call: str) -> None:
    fast = effc.optimize(
        Forms("tensor").eval(), example_inputs=(torch.randn(3, 6), torch.randn(3, 4))
    )
    with pytest.raises(GenerationError, match="E0703.*called with x, scale"):
        eval(f"fast{call}", {"fast": fast, "x": torch.randn(2, 6)})


def test_inputs_that_lie_apart_in_memory() -> None:
    module = mlp()
    fast = effc.optimize(module, example_inputs=(torch.randn(3, 6),))
    x = torch.randn(6, 4).T
    torch.testing.assert_close(fast(x), module(x))
    wide = torch.randn(4, 12)[:, ::2]
    torch.testing.assert_close(fast(wide), module(wide))


def test_the_module_keeps_its_mode_and_the_call_has_no_gradient() -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))
    module.train()
    fast = effc.optimize(module, example_inputs=(torch.randn(3, 6),))
    assert module.training
    x = torch.randn(4, 6, requires_grad=True)
    assert not fast(x).requires_grad
    torch.testing.assert_close(fast(x), module.eval()(x).detach())


class Counting(nn.Module):
    """Writes to a buffer or to its input."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.register_buffer("calls", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "buffer":
            self.calls.add_(1)
        else:
            x.add_(1)
        return x + self.calls


@pytest.mark.parametrize("where", ("buffer", "input"))
def test_writes_that_outlive_the_call_are_refused(where: str) -> None:
    with pytest.raises(ModelError, match="E0306.*in place"):
        effc.optimize(Counting(where).eval(), example_inputs=(torch.randn(3, 6),))


def test_a_dataclass_of_results() -> None:
    class Module(nn.Module):
        def forward(self, x: Tensor) -> Pair:
            return Pair(x + 1, x * 2)

    torch.export.register_dataclass(Pair)
    fast = effc.optimize(Module().eval(), example_inputs=(torch.randn(3, 6),))
    x = torch.randn(2, 6)
    found = fast(x)
    torch.testing.assert_close((found.first, found.second), (x + 1, x * 2))


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="E0306.*'scale' is a float"):
        effc.optimize(Forms("tensor"), example_inputs=(torch.randn(3, 6), 2.0))


def test_uses_of_a_module() -> None:
    """What callers do with a module, by habit."""
    module = mlp()
    fast = effc.optimize(module, example_inputs=(torch.randn(3, 6),))
    x = torch.randn(2, 6)
    assert fast.eval() is fast
    assert fast.to("cpu") is fast
    assert fast.requires_grad_(False) is fast
    with pytest.raises(effc.EffcError, match="E0703.*train"):
        fast.train()
    with pytest.raises(effc.EffcError, match="E0703.*compiled for cpu"):
        fast.to("cuda")
    with torch.no_grad():
        torch.testing.assert_close(fast(x), module(x))
