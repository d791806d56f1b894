"""Any module: captured, run at other sizes, and left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effc
from effc.diagnostics import GenerationError, ModelError
from effc.ir.pattern import op_name
from tests.programs import capture, decoder, example_ids

CANNOT = "this model can be called but cannot generate: "


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        y = F.max_pool2d(F.relu(self.norm(self.conv(images))), 2)
        return self.head(y.mean((2, 3))), y


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, 8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        q, k, v = (
            part.unflatten(-1, (2, 4)).transpose(1, 2)
            for part in self.qkv(self.embed(input_ids)).chunk(3, -1)
        )
        mask = attention_mask[:, None, None, :] != 0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        hidden = self.out(y.transpose(1, 2).flatten(2))
        return {"hidden": hidden, "pooled": hidden[:, 0]}


class OwnPositions(nn.Module):
    """A decoder that counts positions by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = decoder()

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1])[None].expand_as(input_ids)
        return self.inner(input_ids, positions)


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin() if x.sum() > 0 else x.cos()


def images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 8, 8),)


def rows(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 6),)


def texts(batch: int) -> tuple[Tensor, ...]:
    tokens = 4 + batch
    ids = torch.randint(0, 17, (batch, tokens))
    return ids, (torch.arange(tokens) < 3 + torch.arange(batch)[:, None]).long()


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    values = (
        result
        if isinstance(result, tuple)
        else (result if isinstance(result, dict) else vars(result)).values()
    )
    return list(values)


CASES = pytest.mark.parametrize(
    ("make", "inputs"),
    ((Mlp, rows), (Cnn, images), (Encoder, texts)),
    ids=("mlp", "cnn", "encoder"),
)


@CASES
def test_other_sizes_than_the_example(make: Any, inputs: Any) -> None:
    module = make().eval()
    fast = effc.optimize(module, example_inputs=inputs(2))
    for batch in (1, 2, 3, 7):
        given = inputs(batch)
        got, expected = flat(fast(*given)), flat(module(*given))
        assert len(got) == len(expected)
        for left, right in zip(got, expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


@CASES
def test_example_of_one(make: Any, inputs: Any) -> None:
    module = make().eval()
    fast = effc.optimize(module, example_inputs=inputs(1))
    given = inputs(5)
    for left, right in zip(flat(fast(*given)), flat(module(*given)), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


@CASES
def test_module_is_left_as_it_was(make: Any, inputs: Any) -> None:
    module = make()
    frozen = next(m for m in module.modules() if isinstance(m, nn.Linear))
    frozen.eval()  # a part in another mode than the whole
    modes = [m.training for m in module.modules()]
    state = {
        name: (t, t.clone(), t.data_ptr()) for name, t in module.state_dict(keep_vars=True).items()
    }
    effc.optimize(module, example_inputs=inputs(2))
    assert [m.training for m in module.modules()] == modes
    for name, now in module.state_dict(keep_vars=True).items():
        tensor, values, pointer = state[name]
        assert now is tensor and now.data_ptr() == pointer and torch.equal(now, values), name
        assert now.grad is None
    for part in module.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks


@pytest.mark.parametrize("form", ("tuple", "dict", "dict in another order", "tensor"))
def test_forms_of_example_and_call(form: str) -> None:
    module = (Mlp if form == "tensor" else Encoder)().eval()
    given: Any = rows(3) if form == "tensor" else texts(3)
    names = ("x",) if form == "tensor" else ("input_ids", "attention_mask")
    named = dict(zip(names, given, strict=True))
    if form == "dict in another order":
        named = dict(reversed(named.items()))
    example = {"tuple": given, "tensor": given[0]}.get(form, named)
    fast = effc.optimize(module, example_inputs=example)
    expected = flat(module(**named))
    for left, right in zip(flat(fast(**named)), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)
    positional = named.values() if "order" in form else given
    for left, right in zip(flat(fast(*positional)), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


def test_one_tensor_given_for_two_inputs() -> None:
    class Difference(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - 2 * b

    x = torch.randn(3, 4)
    fast = effc.optimize(Difference(), example_inputs=(x, x))
    y = torch.randn(2, 4)
    assert torch.equal(fast(y, y + 1), y - 2 * (y + 1))


def test_inputs_without_a_batch() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale

    dim = torch.export.Dim("N", min=1)
    x, scale = torch.randn(3, 4), torch.randn(1, 4)
    fast = effc.optimize(
        Scaled(), example_inputs=(x, scale), dynamic_shapes={"x": {0: dim}, "scale": {}}
    )
    assert [spec.shape for spec in fast.program.stages["forward"].inputs] == [("N", 4), (1, 4)]
    assert torch.equal(fast(x[:1], scale), x[:1] * scale)


@pytest.mark.parametrize("window", (None, 3))
def test_decoder_gets_a_cache_and_generates(window: int | None) -> None:
    module = decoder(window)
    fast = effc.optimize(module, example_inputs=example_ids())
    assert fast.program.loop == "autoregressive"
    ids, _ = example_ids(2, 6)
    positions = torch.arange(6).repeat(2, 1)
    torch.testing.assert_close(fast(ids).logits, module(ids, positions), rtol=1e-5, atol=1e-5)
    expected = ids
    for _ in range(9):
        at = torch.arange(expected.shape[1]).repeat(2, 1)
        expected = torch.cat([expected, module(expected, at)[:, -1:].argmax(-1)], 1)
    assert torch.equal(fast.generate(ids, max_new_tokens=9), expected)


def test_decoder_knows_its_vocabulary_and_assumes_a_context() -> None:
    fast = effc.optimize(decoder(), example_inputs=example_ids())
    assert fast.program.info.vocabulary == 23
    assert fast.program.info.context == 4096
    assert any("assuming 4096 tokens (set target.context)" in note for note in fast.report["notes"])
    with pytest.raises(GenerationError, match="E0702.*token id 23 lies outside the vocabulary"):
        fast.generate(torch.tensor([[1, 23]]), max_new_tokens=1)


@pytest.mark.parametrize(
    ("module", "example"),
    (
        (OwnPositions(), example_ids()[:1]),
        (Mlp(), rows(2)),
    ),
    ids=("own-positions", "mlp"),
)
def test_what_is_no_decoder_can_be_called_only(module: Any, example: Any) -> None:
    module = module.eval()
    fast = effc.optimize(module, example_inputs=example)
    reason = "the program is no decoder: it needs a stage 'forward' of ids, positions"
    assert CANNOT + reason in fast.report["notes"]
    assert not any("context" in note for note in fast.report["notes"])
    torch.testing.assert_close(fast(*example), module(*example), rtol=1e-6, atol=1e-6)
    with pytest.raises(GenerationError, match="E0704.*its loop is 'none'"):
        fast.generate(torch.tensor([[1]]))


class Bidirectional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = (self.embed(ids) + positions[..., None])[:, None]
        return F.scaled_dot_product_attention(x, x, x)[:, 0]


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = decoder()

    def forward(self, ids: Tensor, positions: Tensor) -> dict[str, Tensor]:
        return {"scores": self.inner(ids, positions)}


@pytest.mark.parametrize(
    ("module", "reason"),
    (
        (Bidirectional(), "attention is not causal, so it cannot be continued token by token"),
        (Scores(), "a decoder returns logits alone, this model scores"),
    ),
    ids=("bidirectional", "other-results"),
)
def test_near_decoder_is_told_why(module: Any, reason: str) -> None:
    fast = effc.optimize(module, example_inputs=example_ids())
    assert CANNOT + reason in fast.report["notes"]


@pytest.mark.parametrize(
    ("module", "options", "text"),
    (
        (DataDependent(), {"example_inputs": rows(2)}, "torch.export cannot capture this model"),
        (Mlp(), {}, "a module needs an example of its inputs"),
        (Mlp(), {"example_inputs": (*rows(2), *rows(2))}, "the example has 2 inputs, the module"),
        (Mlp(), {"example_inputs": {"x": 3}}, "input 'x' is a int, not a tensor"),
    ),
    ids=("data-dependent", "no-example", "too-many", "no-tensor"),
)
def test_refusals(module: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError) as caught:
        effc.optimize(module, **options)
    assert caught.value.code == "E0306"
    assert caught.value.where == type(module).__name__
    assert caught.value.message.startswith(text)
    assert caught.value.help


def test_operators_outside_the_dialect_are_listed() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.noise = Noise()

        def forward(self, x: Tensor) -> Tensor:
            return self.noise(x) + torch.bernoulli(x)

    with pytest.raises(ModelError) as caught:
        effc.optimize(Outer(), example_inputs=rows(2))
    assert str(caught.value).startswith(
        "Outer: error[E0307]: 2 operators of the model are not supported: "
        "aten.randn_like.default (in noise), aten.bernoulli.default (in the model itself)"
    )


def test_failed_capture_restores_the_mode() -> None:
    module = nn.Sequential(DataDependent(), nn.Dropout()).train()
    with pytest.raises(ModelError, match="E0306"):
        effc.optimize(module, example_inputs=rows(2))
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("call", ("()", "(x, x)", "(x, x=x)", "(y=x)", "(x, y=x)"))
def test_wrong_call_is_refused(call: str) -> None:
    fast = effc.optimize(Mlp().eval(), example_inputs=rows(2))
    with pytest.raises(GenerationError, match="E0703.*the model is called with x; found"):
        eval(f"fast{call}", {"fast": fast, "x": rows(2)[0]})


def test_shared_table_stays_one_weight() -> None:
    """`x @ table.T` reads the table itself, not a transposed copy."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(11, 8)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids) @ self.table.weight.T

    fast = effc.optimize(Tied().eval(), example_inputs=(torch.tensor([[1, 2, 3]]),))
    assert list(fast.program.weights) == ["table.weight"]
    assert [op_name(n) for _, n in fast.program.nodes() if op_name(n)] == [
        "aten.embedding.default",
        "aten.linear.default",
    ]


def test_buffers_and_tied_parameters() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.register_buffer("shift", torch.arange(4.0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) + self.shift

    program = capture(Both(), torch.ones(2, 4))
    assert set(program.weights) == {"a.weight", "shift"}
    assert program.weights.ties == {"b.weight": "a.weight"}
    assert (
        program.weights["b.weight"].load().data_ptr()
        == program.weights["a.weight"].load().data_ptr()
    )
