"""The allow-list: everything on it is known, pure and found again; nothing else is found."""

from __future__ import annotations

import operator
import os

import pytest
import torch

import effc.ops  # noqa: F401
from effc.diagnostics import ArtifactError
from effc.ir import opset


def test_every_operator_is_known_and_pure() -> None:
    for name in sorted(opset.ATEN):
        target = opset.lookup(name)
        assert isinstance(target, torch._ops.OpOverload)
        assert not target._schema.is_mutable, name
        random = torch.Tag.nondeterministic_seeded in target.tags
        assert random == (name in opset.RANDOM), name
        assert opset.name_of(target) == name


def test_every_builtin_is_found_under_its_name() -> None:
    for name, target in opset.BUILTINS.items():
        assert opset.lookup(name) is target
        assert opset.name_of(target) == name


def test_only_the_cache_write_mutates() -> None:
    names = [f"effc.{name}.default" for name in dir(torch.ops.effc) if name[0] != "_"]
    mutating = set()
    for name in names:
        try:
            target = opset.lookup(name)
        except ArtifactError:
            continue
        if target._schema.is_mutable:  # type: ignore[attr-defined]
            mutating.add(name)
    assert mutating <= opset.MUTATING
    assert opset.is_allowed(torch.ops.effc.cache_write_.default)


@pytest.mark.parametrize(
    "name",
    [
        *("aten.from_file.default", "aten.add_.Tensor", "aten.add.out", "aten.rand.default"),
        *("aten.randn_like.default", "aten.bernoulli.default", "aten.linear", "aten.linear.nope"),
        *("effc.nothing.default", "effc.name.default", "effc.attend", "effc.__class__.default"),
        *("operator.attrgetter", "operator.methodcaller", "builtins.eval", "os.system", "torch"),
        *("torch.load", "torch.ops.aten.linear.default", "", ".", "aten..", "operator.setitem"),
        *("prims.add.default", "transformers.grouped_mm_fallback.default"),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match="E0604"):
        opset.lookup(name, "stages/decode.json")


@pytest.mark.parametrize(
    "target",
    [
        *(torch.ops.aten.add_.Tensor, torch.ops.aten.from_file.default, torch.ops.aten.add),
        *(os.system, eval, operator.setitem, "aten.add.Tensor", None, [], torch.add),
    ],
)
def test_other_targets_are_not_allowed(target: object) -> None:
    assert not opset.is_allowed(target)
