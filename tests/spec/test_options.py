"""Methods described by their dataclasses, and the check of option values."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from effc.diagnostics import InternalError, PolicyError, Span
from effc.spec.schema import (
    REQUIRED,
    MethodTable,
    OptionError,
    OptionInfo,
    Quantity,
    amount,
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


@dataclass(frozen=True)
class Budgeted:
    """A method with amounts."""

    budget: Quantity = amount("25% of tokens", "tokens", "tokens per head")
    memory: Quantity | Literal["all"] = field(kw_only=True, metadata={"dimension": "bytes"})
    sinks: int | Quantity = amount(4, "")


def test_amounts_are_described_by_their_texts() -> None:
    budget, memory, sinks = method_info_from_dataclass(Budgeted).options
    assert (budget.type, budget.default, budget.help) == (
        "Quantity",
        "25% of tokens",
        "tokens per head",
    )
    assert budget.expected == 'a number of tokens, for example "25% of tokens"'
    assert memory.default is REQUIRED
    assert memory.expected == 'bytes with a unit, for example "3 GiB" or "all"'
    assert sinks.expected.startswith("an integer or a quantity")
    made = Budgeted(memory="all")
    assert (made.budget, made.sinks) == (Quantity.parse("25% of tokens"), Quantity.of(4))


@pytest.mark.parametrize(
    ("type_", "dimension", "value", "expected"),
    [
        ("Quantity", "tokens", "25% of tokens", Quantity.parse("25% of tokens")),
        ("Quantity", "tokens", 64, Quantity.of(64)),
        ("Quantity", "tokens", 0.5, Quantity.of(0.5)),
        ("Quantity", "", "25%", Quantity.parse("25%")),
        ("Quantity | Literal['all']", "tokens", "all", "all"),
        ("int | Quantity", "tokens", 64, 64),
        ("int | Quantity", "tokens", 6.5, Quantity.of(6.5)),
    ],
)
def test_accepted_amount(type_: str, dimension: str, value: object, expected: object) -> None:
    assert OptionInfo("x", type_, dimension=dimension).convert(value) == expected


@pytest.mark.parametrize(
    ("dimension", "value"),
    [
        ("tokens", "25% of layers"),
        ("tokens", "25%"),
        ("bytes", 1024),
        ("a percentage", "0.25"),
        ("a plain number", "3 GiB"),
        ("tokens", True),
        ("tokens", float("inf")),
        ("tokens", 2**63),
        ("tokens", ["64"]),
    ],
)
def test_refused_amount(dimension: str, value: object) -> None:
    with pytest.raises(OptionError):
        OptionInfo("x", "Quantity", dimension=dimension).convert(value)


def test_an_amount_that_cannot_be_read_is_marked_inside_its_text() -> None:
    place = Span("p.toml", 1, 10, 14, 'budget = "25% of token"')
    with pytest.raises(PolicyError) as caught:
        OptionInfo("x", "Quantity", dimension="tokens").convert("25% of token", place)
    assert (caught.value.code, str(caught.value.where)) == ("E0207", "p.toml:1:18")


def test_describing_amounts_loads_no_lark() -> None:
    code = (
        "import sys\n"
        "from dataclasses import make_dataclass\n"
        "from effc.spec.schema import Quantity, amount, method_info_from_dataclass\n"
        "cls = make_dataclass('M', [('x', Quantity, amount('25% of tokens', 'tokens'))])\n"
        "assert method_info_from_dataclass(cls).options[0].default == '25% of tokens'\n"
        "assert 'lark' not in sys.modules\n"
        "cls()\n"
        "assert 'lark' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("type_", ["list[int]", "Tensor", "int |", "dict"])
def test_type_that_no_policy_can_state_is_a_defect_of_the_method(type_: str) -> None:
    with pytest.raises(InternalError, match="a policy cannot state an option of type"):
        OptionInfo("x", type_)
