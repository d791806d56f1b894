"""Selectors mean what the same words mean in Python, and say why a site was left out."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import PolicyError, Span
from effc.spec.conditions import ATTRIBUTES, KINDS
from effc.spec.selector import Selector


@dataclass(frozen=True)
class Site:
    kind: str = "linear"
    name: str = "model.layers.1.mlp.up_proj"
    stage: str = "decode"
    layer: int | None = 1
    layers: int = 8
    heads: int | None = None
    kv_heads: int | None = None
    width: int | None = 64
    params: int | None = 4096


class Undefined(Exception):
    """An attribute that the site lacks, or a division by zero."""


Value = Callable[[Site], Fraction]
Truth = Callable[[Site], bool]

SMALL = st.integers(0, 6)
SITES = st.builds(
    Site,
    kind=st.sampled_from([*KINDS, "rope"]),
    name=st.sampled_from(["", "lm_head", "model.layers.1.mlp", "model.layers.10.attn.q", 'a"b\\']),
    stage=st.sampled_from(["decode", "encode"]),
    layer=st.none() | SMALL,
    layers=SMALL,
    heads=st.none() | SMALL,
    kv_heads=st.none() | SMALL,
    width=st.none() | SMALL,
    params=st.none() | SMALL,
)


def _attribute(name: str) -> Value:
    def value(site: Site) -> Fraction:
        found = getattr(site, name)
        if found is None:
            raise Undefined
        return Fraction(found)

    return value


def _binary(symbol: str, left: Value, right: Value) -> Value:
    apply = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[symbol]

    def value(site: Site) -> Fraction:
        try:
            return apply(left(site), right(site))
        except ZeroDivisionError:
            raise Undefined from None

    return value


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> tuple[str, Value]:
    """An arithmetic expression, as text and as Python."""
    shapes = ["number", "share", "attribute"]
    shape = draw(st.sampled_from(shapes + ["binary", "minus", "call", "parens"] * bool(depth)))
    if shape == "number":
        text = draw(st.sampled_from(["0", "1", "2", "007", "0.5", "1_0", "3.250"]))
        return text, lambda site: Fraction(text.replace("_", ""))
    if shape == "share":
        layers = _attribute("layers")
        return "25% of layers", lambda site: layers(site) / 4
    if shape == "attribute":
        name = draw(st.sampled_from(ATTRIBUTES))
        return name, _attribute(name)
    inner, value = draw(values(depth - 1))
    if shape == "parens":
        return f"( {inner} )", value
    if shape == "minus":
        # Zero minus, because a literal's own sign has a meaning of its own beside `layer`.
        return f"(0 - ({inner}))", lambda site: -value(site)
    other, second = draw(values(depth - 1))
    if shape == "call":
        apply = draw(st.sampled_from([min, max]))
        text = f"{apply.__name__}({inner},{other})"
        if draw(st.booleans()):
            return f"ceil({text})", lambda site: Fraction(ceil(apply(value(site), second(site))))
        return text, lambda site: apply(value(site), second(site))
    symbol = draw(st.sampled_from("+-*/"))
    return f"({inner}) {symbol}({other})", _binary(symbol, value, second)


COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _defined(truth: Truth) -> Truth:
    def guarded(site: Site) -> bool:
        try:
            return truth(site)
        except Undefined:
            return False

    return guarded


@st.composite
def _leaves(draw: st.DrawFn) -> tuple[str, Truth]:
    shape = draw(st.sampled_from(["all", "kind", "name", "stage", "compare", "range", "index"]))
    if shape == "all":
        return "all", lambda site: True
    if shape == "kind":
        word = draw(st.sampled_from([*KINDS]))
        selected = {"linear", "experts"} if word == "linear" else {word}
        return word, lambda site: site.kind in selected
    if shape == "name":
        return draw(
            st.sampled_from(
                [
                    ('name("model.*")', lambda site: site.name.startswith("model.")),
                    ("name('*.mlp')", lambda site: site.name.endswith(".mlp")),
                    ("name(/layers.1\\./)", lambda site: ".layers.1." in site.name),
                    ('name("a\\"b\\\\")', lambda site: site.name == 'a"b\\'),
                ]
            )
        )
    if shape == "stage":
        return 'stage( "decode" )', lambda site: site.stage == "decode"
    symbol = draw(st.sampled_from([*COMPARE]))
    if shape == "index":
        back = draw(st.integers(1, 7))
        layer, layers = _attribute("layer"), _attribute("layers")
        truth = lambda site: COMPARE[symbol](layer(site), layers(site) - back)  # noqa: E731
        return f"layer {symbol} -{back}", _defined(truth)
    (a, left), (b, right), (c, last) = draw(values()), draw(values()), draw(values())
    if shape == "range":
        return f"{a} in {b}..{c}", _defined(
            lambda site: (x := left(site), y := right(site), z := last(site)) and y <= x <= z
        )
    return f"{a} {symbol} {b}", _defined(lambda site: COMPARE[symbol](left(site), right(site)))


@st.composite
def selectors(draw: st.DrawFn, depth: int = 3) -> tuple[str, Truth]:
    """A selector, as text and as Python."""
    shape = draw(st.sampled_from(["leaf", "not", "and", "or"] if depth else ["leaf"]))
    if shape == "leaf":
        return draw(_leaves())
    parts = draw(st.lists(selectors(depth - 1), min_size=1 if shape == "not" else 2, max_size=3))
    texts, truths = [f"({text})" for text, _ in parts], [truth for _, truth in parts]
    if shape == "not":
        return f"not {texts[0]}", lambda site: not truths[0](site)
    combine = all if shape == "and" else any
    return f" {shape} ".join(texts), lambda site: combine(truth(site) for truth in truths)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(selectors(), st.lists(SITES, min_size=1, max_size=8))
def test_matches_agrees_with_python(selector: tuple[str, Truth], sites: list[Site]) -> None:
    text, truth = selector
    parsed = Selector.parse(text)
    for site in sites:
        match = parsed.matches(site)
        assert match.ok == bool(match) == truth(site)
        assert bool(match.reason) == (not match.ok)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(selectors())
def test_canonical_text_parses_to_the_same_tree(selector: tuple[str, Truth]) -> None:
    parsed = Selector.parse(selector[0])
    assert Selector.parse(str(parsed)) == parsed


TOKENS = [
    *KINDS, *ATTRIBUTES, *COMPARE, "tokens", "and", "or", "not", "all", "in", "of", "name", "stage",
    "min", "ceil", "(", ")", "..", "=", "+", "-", "*", "/", "%", ",", "0", "12", "3.5", "GiB",
    '"x"', "/y/", "liner", "\n", "$", "é", "\\",
]  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text(max_size=30) | st.lists(st.sampled_from(TOKENS), max_size=12).map(" ".join))
def test_any_text_parses_or_is_refused_with_a_place(text: str) -> None:
    try:
        parsed = Selector.parse(text)
    except PolicyError as error:
        assert error.code == "E0206"
        assert isinstance(error.where, Span)
    else:
        assert Selector.parse(str(parsed)) == parsed
        assert isinstance(parsed.matches(Site()).ok, bool)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("linear  or(embedding)", "linear or embedding"),
        ("layer>=layers/2", "layer >= layers / 2"),
        ("layer in 2 .. -3", "layer in 2..-3"),
        ("name('model.*') and not (norm)", 'name("model.*") and not norm'),
        ("not (linear and norm) or (conv or all)", "not (linear and norm) or (conv or all)"),
        ("width == (1+2)*3-(4-5)", "width == (1 + 2) * 3 - (4 - 5)"),
        ("layer == -(1)", "layer == -1"),
        ("params > 1_000_000.50", "params > 1000000.5"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert str(Selector.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("layer >= 2", "layer is 1, the rule asks for layer >= 2"),
        ("layer >= layers/2", "layer is 1 and layers is 8, the rule asks for layer >= layers / 2"),
        ("layer == -1", "layer is 1 and layers is 8, the rule asks for layer == -1"),
        ("layer in 2..-3", "layer is 1 and layers is 8, the rule asks for layer in 2..-3"),
        ("embedding", "kind is linear, the rule asks for embedding"),
        ("norm or conv", "kind is linear, the rule asks for norm or conv"),
        ("heads > 4", "the site has no heads, the rule asks for heads > 4"),
        ("linear and layer > 2 and width > 99", "layer is 1, the rule asks for layer > 2"),
        ("norm or linear and layer > 2", "layer is 1, the rule asks for layer > 2"),
        ("not linear", "linear holds, the rule asks for not linear"),
        ('stage("encode")', 'stage is "decode", the rule asks for stage("encode")'),
        (
            'name("*.down_proj")',
            'name is "model.layers.1.mlp.up_proj", the rule asks for name("*.down_proj")',
        ),
        (
            "layer > 1 / (layer - 1)",
            "layer is 1 and that divides by zero, the rule asks for layer > 1 / (layer - 1)",
        ),
        ("1 > 2", "1 > 2 is false, the rule asks for 1 > 2"),
    ],
)
def test_reason_names_the_first_condition_that_fails(text: str, reason: str) -> None:
    assert Selector.parse(text).matches(Site()).reason == reason


def test_linear_includes_experts_and_experts_alone_do_not_include_linear() -> None:
    assert Selector.parse("linear").matches(Site(kind="experts"))
    assert not Selector.parse("experts").matches(Site(kind="linear"))


@pytest.mark.parametrize(
    ("text", "layers"), [("layer in 2..-3", [2, 3, 4, 5]), ("layer == -1", [7])]
)
def test_negative_layers_count_from_the_end(text: str, layers: list[int]) -> None:
    selector = Selector.parse(text)
    assert [i for i in range(8) if selector.matches(Site(layer=i))] == layers


def test_nearest_miss_satisfies_most_conditions() -> None:
    sites = [Site(kind="norm", layer=7), Site(layer=1), Site(layer=2), Site(kind="conv", layer=0)]
    miss = Selector.parse("linear and layer >= 5").nearest_miss(sites)
    assert miss == (sites[0], "kind is norm, the rule asks for linear")
    miss = Selector.parse('linear and layer >= 5 and stage("decode")').nearest_miss(sites[1:])
    assert miss == (sites[1], "layer is 1, the rule asks for layer >= 5")


@pytest.mark.parametrize("asked", ['name("*.mlp.upp_proj")', "name(/mlp.upp_proj$/)"])
def test_nearest_miss_has_the_name_most_like_the_one_asked_for(asked: str) -> None:
    names = ["model.embed_tokens", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"]
    sites = [Site(name=name) for name in names]
    for selector in (asked, f"linear and {asked}", f"norm or {asked}"):
        miss = Selector.parse(selector).nearest_miss(sites)
        assert miss is not None and miss[0] is sites[1]
    # The number of conditions that hold comes first, a name that is refused has no say.
    norm = Site(kind="norm", name="model.layers.0.mlp.up_proj")
    miss = Selector.parse(f"linear and {asked}").nearest_miss([norm, sites[0]])
    assert miss is not None and miss[0] is sites[0]
    miss = Selector.parse('layer == 9 and not name("*.mlp.x")').nearest_miss(sites)
    assert miss is not None and miss[0] is sites[0]


def test_nearest_miss_is_none_when_every_site_matches() -> None:
    assert Selector.parse("all").nearest_miss([Site()]) is None


def test_deep_selector_is_refused() -> None:
    with pytest.raises(PolicyError, match="the selector is too long"):
        Selector.parse("(" * 5000 + "all" + ")" * 5000)


def test_long_alternatives_are_fine() -> None:
    assert Selector.parse(" or ".join(["norm"] * 2000 + ["linear"])).matches(Site())
