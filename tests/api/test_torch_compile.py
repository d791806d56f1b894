"""`torch.compile(model, backend="effc")` is `effc.optimize` for whatever Dynamo captures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effc
from effc.diagnostics import EffcError, ModelError, NoMatchError, PolicyError, TargetError

FOUR_BIT = {"version": 1, "quantize": [{"where": "linear", "method": "rtn", "bits": 4}]}


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


class Mlp(nn.Module):
    """Two linears in a list, a buffer, a dictionary with a size in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(32, 64), nn.Linear(64, 32)])
        self.register_buffer("offset", torch.randn(32))

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.layers[1](torch.relu(self.layers[0](x))) + self.offset
        return {"y": y, "rows": x.shape[0]}


class Block(nn.Module):
    """A transformer block without a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


def compiled(model: Any, spec: Any = None, **options: Any) -> Any:
    return torch.compile(model, backend="effc", options={"spec": spec}, **options)


def test_it_is_registered() -> None:
    assert "effc" in torch._dynamo.list_backends()


def test_results_are_those_of_optimize() -> None:
    model, x = Block().eval(), torch.randn(3, 7, 32)
    shapes = {"x": {0: torch.export.Dim("B"), 1: torch.export.Dim("T")}}
    fast = effc.optimize(model, FOUR_BIT, example_inputs=(x,), dynamic_shapes=shapes)
    found = compiled(model, FOUR_BIT, fullgraph=True)(x)
    assert torch.equal(found, fast(x))
    assert (found - model(x)).abs().max() > 1e-3


def test_sites_have_the_names_of_the_model() -> None:
    """One of two linears, chosen by name; the other stays exact."""
    model, x = Mlp().eval(), torch.randn(3, 32)
    rule = {"where": 'name("layers.1")', "method": "rtn"}
    spec = {"version": 1, "quantize": [rule]}
    fast = effc.optimize(model, spec, example_inputs=(x,))
    found = compiled(model, spec)(x)
    assert torch.equal(found["y"], fast(x).y)
    assert not torch.allclose(found["y"], model(x)["y"], atol=1e-4)


@pytest.mark.parametrize("dynamic", (None, True))
def test_other_sizes(dynamic: bool | None) -> None:
    """Dynamo compiles again with a symbolic size, or starts with one."""
    model = Mlp().eval()
    fast = compiled(model, dynamic=dynamic)
    for rows in (3, 5, 7, 1):
        x = torch.randn(rows, 32)
        found = fast(x)
        torch.testing.assert_close(found["y"], model(x)["y"])
        assert found["rows"] == rows


def test_inputs_that_lie_apart_in_memory() -> None:
    model = Mlp().eval()
    fast = compiled(model)
    for rows in (4, 6, 9):
        x = torch.randn(rows, 64)[:, ::2]
        torch.testing.assert_close(fast(x)["y"], model(x)["y"])


def test_an_encoder_of_transformers() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        vocab_size=99, max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config).eval()
    fast = compiled(model)
    for tokens in (7, 5, 9):
        ids = torch.randint(0, 99, (2, tokens))
        mask = (torch.arange(tokens) < torch.tensor([[tokens], [3]])).long()
        found, expected = fast(ids, attention_mask=mask), model(ids, attention_mask=mask)
        assert type(found) is type(expected)
        for name in ("last_hidden_state", "pooler_output"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


class Broken(nn.Module):
    """A break in the graph between two linears."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        torch._dynamo.graph_break()
        return self.second(y)


def test_graph_breaks() -> None:
    model, x = Broken().eval(), torch.randn(2, 32)
    torch.testing.assert_close(compiled(model)(x), model(x))
    torch._dynamo.reset()
    rule = {"where": 'name("first")', "method": "rtn"}
    with pytest.raises(NoMatchError, match="(?s)E0401.*in one graph.*optional = true"):
        compiled(model, {"version": 1, "quantize": [rule]})(x)
    torch._dynamo.reset()
    found = compiled(model, {"version": 1, "quantize": [rule | {"optional": True}]})(x)
    assert not torch.allclose(found, model(x), atol=1e-4)


@pytest.mark.parametrize("suppress", (False, True))
def test_a_refusal_reaches_the_caller(suppress: bool) -> None:
    """As itself, at every call, even where Dynamo would rather run without a backend."""
    rule = {"where": "linear and layer == 9", "method": "rtn"}
    fast = compiled(Mlp().eval(), {"version": 1, "quantize": [rule]})
    for _ in range(2):
        with (
            torch._dynamo.config.patch(suppress_errors=suppress),
            pytest.raises(NoMatchError, match="E0401") as caught,
        ):
            fast(torch.randn(2, 32))
        assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("spec", "text"),
    (
        ({"kv": [{"where": "attention", "store": {"method": "int8"}}]}, r"\[kv\].*no state"),
        ({"quality": {"max_kl": 0.1}}, r"\[quality\].*nothing is measured"),
    ),
)
def test_what_needs_state_is_refused(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(PolicyError, match=f"(?s)E0211.*{text}.*effc.optimize"):
        compiled(Mlp().eval(), {"version": 1, **spec})(torch.randn(2, 32))


def test_gradients_are_refused() -> None:
    model, x = Mlp().eval(), torch.randn(2, 32)
    with (
        torch.enable_grad(),
        pytest.raises(ModelError, match="(?s)E0306.*inference only.*no_grad"),
    ):
        compiled(model)(x)
    torch._dynamo.reset()
    with torch.inference_mode():
        torch.testing.assert_close(compiled(model)(x)["y"], model(x)["y"])


def test_another_device_is_refused() -> None:
    with pytest.raises(TargetError, match="(?s)E0502.*on cpu.*target is cuda"):
        compiled(Mlp().eval(), {"version": 1, "target": {"device": "cuda"}})(torch.randn(2, 32))


def test_options_that_do_not_exist() -> None:
    model, x = Mlp().eval(), torch.randn(2, 32)
    wrong = torch.compile(model, backend="effc", options={"policy": None})
    with pytest.raises(EffcError, match="(?s)E0202.*'policy'.*allowed: .*spec"):
        wrong(x)


def test_a_number_is_no_input() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, steps: int) -> Tensor:
            return x * steps

    fast = compiled(Scaled().eval(), dynamic=True)
    with pytest.raises(ModelError, match="(?s)E0306.*no size of an input"):
        fast(torch.randn(2, 32), 3)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("effc").setLevel(logging.WARNING)
    compiled(Mlp().eval())(torch.randn(2, 32))
    assert capfd.readouterr() == ("", "")
