"""Methods described by their dataclasses, and the check of option values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from effc.diagnostics import InternalError
from effc.spec.schema import (
    REQUIRED,
    MethodTable,
    OptionError,
    OptionInfo,
    method_info_from_dataclass,
)

Alias = Literal["a", "b"]


@dataclass(frozen=True)
class Base:
    """A base without a name."""

    kind: ClassVar[str] = "quantize"
    alias: Alias | None


@dataclass(frozen=True)
class Method(Base):
    """First line.

    More.
    """

    name: ClassVar[str] = "method"
    paper: ClassVar[str] = "https://example.org"

    alias: Alias | None = None
    size: int = field(default=2, metadata={"choices": (1, 2), "help": "how large"})
    rate: float = field(default_factory=lambda: 0.5)
    hidden: int = field(default=0, init=False)


def test_description_of_a_dataclass() -> None:
    info = method_info_from_dataclass(Method)
    assert (info.name, info.kind, info.paper) == ("method", "quantize", "https://example.org")
    assert info.summary == "First line."
    assert info.check is Method
    assert info.options == (
        OptionInfo("alias", "Literal['a', 'b'] | None", None),
        OptionInfo("size", "int", 2, (1, 2), "how large"),
        OptionInfo("rate", "float", 0.5),
    )


def test_options_of_the_method_table(methods: MethodTable) -> None:
    info = methods["quantize"]["rtn"]
    assert [option.name for option in info.options] == ["bits", "group", "symmetric", "activations"]
    assert info.summary == "Round to nearest, one scale per group."
    assert info.option("bits") == OptionInfo(
        "bits", "Literal[8, 4]", 4, help="bits per weight"
    )  # fmt: skip
    samples = methods["quantize"]["calibrated"].option("samples")
    assert samples is not None and samples.default is REQUIRED


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("int", 3),
        ("bool", True),
        ("float", 0.5),
        ("str", ""),
        ("int | Literal['row']", "row"),
        ("int | Literal['row']", 7),
        ("Literal[8, 4]", 4),
        ("Literal['a', True] | None", True),
    ],
)
def test_accepted_value(type_: str, value: object) -> None:
    assert OptionInfo("x", type_).convert(value) is value


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("int", True, "an integer"),
        ("int", 2**63, "an integer"),
        ("int", 3.0, "an integer"),
        ("bool", 1, "true or false"),
        ("float", "1", "a number"),
        ("float", float("nan"), "a number"),
        ("str", 3, "a text"),
        ("int | Literal['row']", "rows", 'an integer or "row"'),
        ("Literal[8, 4, 2]", 3, "8, 4 or 2"),
        ("Literal[1]", True, "1"),
        ("Literal['a'] | None", None, '"a"'),
    ],
)
def test_refused_value(type_: str, value: object, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        OptionInfo("x", type_).convert(value)
    assert caught.value.expected == expected


def test_choices_come_before_the_type() -> None:
    option = OptionInfo("x", "int", choices=(1, 2))
    assert option.convert(2) == 2
    with pytest.raises(OptionError, match="option 'x' takes 1 or 2, found 3"):
        option.convert(3)


def test_integer_becomes_the_float_that_is_asked_for() -> None:
    value = OptionInfo("x", "float").convert(1)
    assert isinstance(value, float) and value == 1


@pytest.mark.parametrize("type_", ["list[int]", "Tensor", "int |", "dict"])
def test_type_that_no_policy_can_state_is_a_defect_of_the_method(type_: str) -> None:
    with pytest.raises(InternalError, match="a policy cannot state an option of type"):
        OptionInfo("x", type_)
