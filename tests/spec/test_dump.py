"""A policy written as text reads as the same policy, for policies with every table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from effc.spec.parse import dump_policy, load_policy, parse_policy
from effc.spec.schema import (
    DTYPES,
    GATES,
    STREAM_KV,
    STREAM_WEIGHTS,
    VERIFY,
    Choice,
    DraftSpec,
    KvRule,
    MethodTable,
    Policy,
    QualitySpec,
    Quantity,
    QuantizeRule,
    Rule,
    StreamSpec,
    TargetSpec,
    TokensRule,
)
from effc.spec.selector import Selector

AnyRule = TypeVar("AnyRule", bound=Rule)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
POSITIVE = st.integers(1, 2**63 - 1)
FLOATS = st.floats(0, allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PATTERNS = st.builds(
    lambda text: Selector.parse('name("' + text.replace("\\", "\\\\").replace('"', '\\"') + '")'),
    TEXTS,
)
SELECTORS = PATTERNS | st.sampled_from(
    ["all", "linear and not (experts or norm)", "layer in 2..-3", "name(/a\\/b\\d/) or width > 1.5"]
).map(Selector.parse)
MEMORY = st.sampled_from(["3 GiB", "max(1 GB, 512 MiB * 3)", "0.5 KiB"]).map(Quantity.parse)
COUNTS = (
    st.sampled_from(["max(256, 25% of tokens)", "tokens / 4", "-0.5% of tokens"]).map(
        Quantity.parse
    )
    | st.builds(Quantity.of, INTEGERS)
    | st.builds(Quantity.of, st.floats(allow_nan=False, allow_infinity=False))
)

TARGETS = st.builds(
    TargetSpec,
    device=st.sampled_from(["cpu", "cuda", "cuda:sm80", "cuda:sm100"]),
    memory=st.none() | MEMORY,
    context=st.none() | POSITIVE,
    batch=POSITIVE,
    dtype=st.none() | st.sampled_from(DTYPES),
    threads=st.none() | POSITIVE,
    allow_reference=st.booleans(),
)
# One bound at least, so that any rule may have a gate.
QUALITIES = st.builds(
    QualitySpec,
    data=st.none() | TEXTS,
    tokens=POSITIVE,
    max_kl=FLOATS,
    max_perplexity_ratio=st.none() | FLOATS,
    min_top1=st.none() | st.floats(0, 1),
    max_time_ratio=st.none() | FLOATS,
)


def choices(method: str, **options: st.SearchStrategy[object]) -> st.SearchStrategy[Choice]:
    """A method with any part of these options."""
    given = st.fixed_dictionaries({}, optional=options)
    return st.builds(Choice, st.just(method), given)


QUANTIZE = choices(
    "rtn",
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([16, 4096, "row"]),
    symmetric=st.booleans(),
    activations=st.sampled_from(["source", "int8"]),
) | st.builds(
    Choice,
    st.just("calibrated"),
    st.fixed_dictionaries(
        {"samples": INTEGERS},
        optional={"damping": st.floats(allow_nan=False, allow_infinity=False)},
    ),
)
KEPT = st.builds(
    Choice,
    st.just("window"),
    st.fixed_dictionaries({"budget": COUNTS}, optional={"sinks": INTEGERS}),
) | choices("snap", budget=COUNTS | st.just("all"))
STORED = choices("int8", key_bits=st.sampled_from([8, 6]), recent=INTEGERS)
REDUCED = choices("id", keep=COUNTS)


def numbered(build: Callable[..., AnyRule], *parts: st.SearchStrategy[object]) -> object:
    """Up to three rules, each knowing its index."""

    def rules(drawn: list[tuple[object, ...]]) -> tuple[AnyRule, ...]:
        return tuple(build(*values, index=index) for index, values in enumerate(drawn))

    common = (SELECTORS, st.booleans(), st.none() | st.sampled_from(GATES))
    return st.lists(st.tuples(*common, *parts), max_size=3).map(rules)


def quantize_rule(
    where: Selector, optional: bool, gate: str | None, choice: Choice, index: int
) -> QuantizeRule:
    return QuantizeRule(where, choice.method, choice.options, optional, gate, index)


def tokens_rule(
    where: Selector, optional: bool, gate: str | None, choice: Choice, index: int
) -> TokensRule:
    return TokensRule(where, choice.method, choice.options, optional, gate, index)


def kv_rule(
    where: Selector,
    optional: bool,
    gate: str | None,
    both: tuple[Choice | None, Choice | None],
    index: int,
) -> KvRule:
    kept, store = both
    kept = kept or Choice("")
    return KvRule(where, kept.method, kept.options, optional, gate, index, store=store)


POLICIES = st.builds(
    Policy,
    target=TARGETS,
    quality=QUALITIES,
    quantize=numbered(quantize_rule, QUANTIZE),
    kv=numbered(
        kv_rule,
        st.tuples(KEPT, st.none()) | st.tuples(st.none(), STORED) | st.tuples(KEPT, STORED),
    ),
    tokens=numbered(tokens_rule, REDUCED),
    draft=st.none()
    | st.builds(
        DraftSpec,
        st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
        st.just("ucb"),
        st.sampled_from(VERIFY),
        st.fixed_dictionaries({}, optional={"horizon": INTEGERS}),
    ),
    stream=st.none()
    | st.builds(StreamSpec, st.sampled_from(STREAM_WEIGHTS), st.sampled_from(STREAM_KV)),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(policy=POLICIES)
def test_dump_parses_to_an_equal_policy(policy: Policy, everything: MethodTable) -> None:
    text = dump_policy(policy)
    parsed = parse_policy(text, methods=everything)
    assert parsed == policy
    assert dump_policy(parsed) == text


@settings(max_examples=50, deadline=None, derandomize=True)
@given(policy=POLICIES)
def test_a_policy_given_as_such_can_be_overridden(policy: Policy, everything: MethodTable) -> None:
    changed = load_policy(policy, everything, overrides=["target.batch=7"])
    assert changed.target.batch == 7
    again = load_policy(changed, everything, overrides=[f"target.batch={policy.target.batch}"])
    assert again == policy
    assert parse_policy(changed.text, methods=everything) == changed


def test_without_tables_there_is_only_the_version() -> None:
    assert dump_policy(Policy()) == "version = 1\n"


def test_tables_of_defaults_stay_tables(everything: MethodTable) -> None:
    policy = Policy(quality=QualitySpec(), stream=StreamSpec())
    assert dump_policy(policy) == "version = 1\n\n[quality]\n\n[stream]\n"
    assert parse_policy(dump_policy(policy), methods=everything) == policy


def test_stores_are_inline_tables() -> None:
    rule = KvRule(Selector.parse("all"), "", gate="fail", store=Choice("int8", {"recent": 2}))
    draft = DraftSpec(("a", 'b "c"'), "ucb", options={"share": Quantity.parse("5%")})
    assert dump_policy(Policy(kv=(rule,), draft=draft)) == (
        'version = 1\n\n[[kv]]\nwhere = "all"\ngate = "fail"\n'
        'store = { method = "int8", recent = 2 }\n\n'
        '[draft]\ndrafters = ["a", "b \\"c\\""]\nselect = "ucb"\nshare = "5%"\n'
    )
