"""Weights: values on demand, derivations, ties."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from effc.ir.weights import Derivation, Weight, Weights


def test_shape_and_bytes_need_no_values() -> None:
    def never() -> torch.Tensor:
        raise AssertionError("read")

    weight = Weight((3, 5), torch.float16, never, "file:w")
    assert (weight.numel, weight.nbytes) == (15, 30)
    mapped = weight.map(torch.t, shape=(5, 3), origin="transpose of file:w")
    assert (mapped.shape, mapped.dtype, mapped.origin) == (
        (5, 3),
        torch.float16,
        "transpose of file:w",
    )
    with pytest.raises(AssertionError, match="read"):
        mapped.load()


def test_parameters_lose_their_gradients_and_keep_their_memory() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    loaded = Weight.of(parameter).load()
    assert not loaded.requires_grad
    assert loaded.data_ptr() == parameter.data_ptr()


def test_mapping_computes_at_every_load() -> None:
    calls = []

    def double(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return 2 * x

    weight = Weight.of(torch.ones(2)).map(double, shape=(2,), origin="doubled")
    assert not calls
    assert weight.load().tolist() == weight.load().tolist() == [2, 2]
    assert len(calls) == 2


class Counted:
    """A derivation with two results that counts its computations."""

    def __init__(self) -> None:
        self.count = 0
        self.derivation = Derivation(self.compute)
        self.a, self.b = (
            self.derivation.weight(name, (2,), torch.float32, name) for name in ("a", "b")
        )

    def compute(self) -> dict[str, torch.Tensor]:
        self.count += 1
        return {"a": torch.zeros(2), "b": torch.ones(2)}


def test_derivation_computes_once_per_round() -> None:
    made = Counted()
    assert made.count == 0
    for rounds in (1, 2, 3):
        assert made.b.load().tolist() == [1, 1]
        assert made.a.load().tolist() == [0, 0]
        assert made.count == rounds


def test_same_result_twice_is_two_rounds() -> None:
    made = Counted()
    made.a.load()
    made.a.load()
    assert made.count == 2


def test_derivation_lets_go_of_what_it_handed_out() -> None:
    made = Counted()
    held = made.a.load()
    made.b.load()
    reference = weakref.ref(held)
    del held
    gc.collect()
    assert reference() is None


def test_weights_that_come_together_name_one_derivation() -> None:
    made = Counted()
    packed = Derivation(lambda: {"codes": made.a.load()}, source=made.a)
    codes = packed.weight("codes", (2,), torch.float32, "packed")
    cast = codes.map(torch.neg, shape=(2,), origin="cast")
    assert made.a.derivation is made.b.derivation is codes.derivation is cast.derivation
    assert made.a.derivation is made.derivation
    alone = Derivation(lambda: {}, source=Weight.of(torch.ones(2)))
    assert alone.root is alone
    assert Weight.of(torch.ones(2)).derivation is None


def test_ties_share_one_entry() -> None:
    weights = Weights({"kept": Weight.of(torch.ones(3))})
    weights.ties["alias"] = "kept"
    assert weights["alias"] is weights["kept"]
    assert "alias" in weights
    assert list(weights) == ["kept"]
    assert weights.nbytes == 12
    copy = weights.copy()
    weights.remove("kept")
    assert "alias" not in weights and not weights.ties
    assert copy["alias"].shape == (3,)


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match="nothing"):
        Weights()["nothing"]
