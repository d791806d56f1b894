"""Rules for cache and tokens, drafting and streaming: what is read, and what is refused."""

# ruff: noqa: E501 (the texts stand here as they are printed)

from __future__ import annotations

import pytest

from effc.diagnostics import PolicyError, Span
from effc.spec.parse import parse_policy, policy_from_dict
from effc.spec.schema import (
    Choice,
    DraftSpec,
    KvRule,
    MethodTable,
    QualitySpec,
    Quantity,
    StreamSpec,
    TokensRule,
)
from effc.spec.selector import Selector

TEXT = """\
version = 1

[quality]
min_top1 = 1
max_time_ratio = 1.0

[[kv]]
where  = "attention and layer >= 2"
method = "window"
budget = "max(256, 25% of tokens)"
gate   = "revert"

[[kv]]
where = "attention"
store = { method = "int8", key_bits = 6 }

[[kv]]
where  = "attention"
method = "snap"
budget = "all"
[kv.store]
method = "int8"

[[tokens]]
where  = "embedding"
method = "id"
keep   = 32

[draft]
drafters = ["ngram", "drafts/code"]
select   = "ucb"
verify   = "loose"
share    = "5%"

[stream]
weights = "host"
"""


def test_every_table_is_read(everything: MethodTable) -> None:
    policy = parse_policy(TEXT, file="p.toml", methods=everything)
    attention = Selector.parse("attention")
    budget = Quantity.parse("max(256, 25% of tokens)")
    assert policy.quality == QualitySpec(min_top1=1.0, max_time_ratio=1.0)
    assert policy.kv == (
        KvRule(
            Selector.parse("attention and layer >= 2"), "window", {"budget": budget}, gate="revert"
        ),
        KvRule(attention, "", index=1, store=Choice("int8", {"key_bits": 6})),
        KvRule(attention, "snap", {"budget": "all"}, index=2, store=Choice("int8")),
    )
    keep = {"keep": Quantity.of(32)}
    assert policy.tokens == (TokensRule(Selector.parse("embedding"), "id", keep),)
    share = {"share": Quantity.parse("5%")}
    assert policy.draft == DraftSpec(("ngram", "drafts/code"), "ucb", "loose", share)
    assert policy.stream == StreamSpec("host", "device")
    assert policy.kv[1].span == Span("p.toml", 13, 3, 2, "[[kv]]")


def test_choices_by_aspect(everything: MethodTable) -> None:
    kept, stored, both = parse_policy(TEXT, methods=everything).kv
    assert kept.choices() == {"kv": Choice("window", kept.options)}
    assert stored.choices() == {"store": Choice("int8", {"key_bits": 6})}
    assert list(both.choices()) == ["kv", "store"]


def test_bounds_in_force() -> None:
    assert QualitySpec().bounds() == {}
    assert QualitySpec(max_kl=0.0, min_top1=0.5).bounds() == {"max_kl": 0.0, "min_top1": 0.5}


def test_the_empty_tables_of_one_kind_say_their_defaults(everything: MethodTable) -> None:
    policy = parse_policy("version = 1\n[stream]\n", methods=everything)
    assert policy.stream == StreamSpec("auto", "device")


RULE = 'version = 1\n[[kv]]\nwhere = "attention"\n'

CASES = [
    (
        "neither method nor store",
        RULE,
        """\
p.toml:2:3: error[E0208]: [[kv]] needs the key 'method' or 'store'
    2 | [[kv]]
      |   ^^
help: add method = "snap", for example""",
    ),
    (
        "misspelt store",
        RULE + 'stor = { method = "int8" }',
        """\
p.toml:4:1: error[E0202]: unknown key 'stor' in [[kv]]
    4 | stor = { method = "int8" }
      | ^^^^
help: did you mean 'store'?""",
    ),
    (
        "store as a text",
        RULE + 'store = "int8"',
        """\
p.toml:4:9: error[E0205]: 'store' in [[kv]] takes a table such as { method = "..." }, found "int8\"
    4 | store = "int8"
      |         ^^^^^^""",
    ),
    (
        "store without a method",
        RULE + "store = { key_bits = 6 }",
        """\
p.toml:4:1: error[E0208]: [[kv]] store needs the key 'method'
    4 | store = { key_bits = 6 }
      | ^^^^^
help: add method = "int8", for example""",
    ),
    (
        "unknown method inside the store",
        RULE + 'store = { method = "int9" }',
        """\
p.toml:4:20: error[E0204]: unknown method "int9" in [[kv]] store
    4 | store = { method = "int9" }
      |                    ^^^^^^
help: did you mean 'int8'? allowed: int8""",
    ),
    (
        "method of another table",
        RULE + 'method = "int8"',
        """\
p.toml:4:10: error[E0204]: unknown method "int8" in [[kv]]
    4 | method = "int8"
      |          ^^^^^^
help: "int8" is a method of [[kv]] store""",
    ),
    (
        "unknown option inside the store",
        RULE + 'store = { method = "int8", bits = 6 }',
        """\
p.toml:4:28: error[E0203]: unknown option 'bits' for method "int8"
    4 | store = { method = "int8", bits = 6 }
      |                            ^^^^
help: did you mean 'key_bits'? allowed: key_bits, method, recent""",
    ),
    (
        "wrong option inside the store",
        RULE + 'store = { method = "int8", key_bits = 5 }',
        """\
p.toml:4:39: error[E0205]: option 'key_bits' of method "int8" takes 8 or 6, found 5
    4 | store = { method = "int8", key_bits = 5 }
      |                                       ^""",
    ),
    (
        "search inside the store",
        RULE + 'store = { method = "auto" }',
        """\
p.toml:4:20: error[E0212]: method = "auto" asks for a search, which this version does not have
    4 | store = { method = "auto" }
      |                    ^^^^^^
help: name a method of [[kv]] store: int8""",
    ),
    (
        "option without a method",
        RULE + 'store = { method = "int8" }\nbudget = 64',
        """\
p.toml:5:1: error[E0202]: unknown key 'budget' in [[kv]], which names no method
    5 | budget = 64
      | ^^^^^^
help: allowed: gate, method, optional, store, where""",
    ),
    (
        "quantity that cannot be read",
        RULE + 'method = "window"\nbudget = "max(256, 25% of token)"',
        """\
p.toml:5:27: error[E0207]: unexpected 'token' in the quantity
    5 | budget = "max(256, 25% of token)"
      |                           ^^^^^
help: did you mean 'tokens'? allowed: heads, layers, tokens, weights""",
    ),
    (
        "quantity of another dimension",
        RULE + 'method = "window"\nbudget = "3 GiB"',
        """\
p.toml:5:10: error[E0205]: option 'budget' of method "window" takes a number of tokens, for example "25% of tokens", found "3 GiB"
    5 | budget = "3 GiB"
      |          ^^^^^^^""",
    ),
    (
        "share of nothing",
        RULE + 'method = "window"\nbudget = "25%"',
        """\
p.toml:5:10: error[E0205]: option 'budget' of method "window" takes a number of tokens, for example "25% of tokens", found "25%"
    5 | budget = "25%"
      |          ^^^^^""",
    ),
    (
        "number without its percent sign",
        'version = 1\n[draft]\ndrafters = ["a"]\nselect = "ucb"\nshare = 5',
        """\
p.toml:5:9: error[E0205]: option 'share' of method "ucb" takes a percentage, for example "25%", found 5
    5 | share = 5
      |         ^""",
    ),
    (
        "draft without drafters",
        'version = 1\n[draft]\nselect = "ucb"',
        """\
p.toml:2:2: error[E0208]: [draft] needs the key 'drafters'
    2 | [draft]
      |  ^^^^^
help: add drafters = ["ngram"], for example""",
    ),
    (
        "draft without a choice",
        'version = 1\n[draft]\ndrafters = ["ngram"]',
        """\
p.toml:2:2: error[E0208]: [draft] needs the key 'select'
    2 | [draft]
      |  ^^^^^
help: add select = "ucb", for example""",
    ),
    (
        "one drafter that is no list",
        'version = 1\n[draft]\ndrafters = "ngram"\nselect = "ucb"',
        """\
p.toml:3:12: error[E0205]: 'drafters' in [draft] takes a list of texts such as ["ngram"], found "ngram\"
    3 | drafters = "ngram"
      |            ^^^^^^^""",
    ),
    (
        "no drafter",
        'version = 1\n[draft]\ndrafters = []\nselect = "ucb"',
        """\
p.toml:3:12: error[E0205]: 'drafters' in [draft] takes a list of texts such as ["ngram"], found a list
    3 | drafters = []
      |            ^^""",
    ),
    (
        "another way to verify",
        'version = 1\n[draft]\ndrafters = ["ngram"]\nselect = "ucb"\nverify = "lose"',
        """\
p.toml:5:10: error[E0205]: 'verify' in [draft] takes one of "exact", "loose", found "lose\"
    5 | verify = "lose"
      |          ^^^^^^
help: did you mean 'loose'? allowed: exact, loose""",
    ),
    (
        "another tier",
        'version = 1\n[stream]\nkv = "disk"',
        """\
p.toml:3:6: error[E0205]: 'kv' in [stream] takes one of "device", "host", found "disk\"
    3 | kv = "disk"
      |      ^^^^^^
help: allowed: device, host""",
    ),
    (
        "another gate",
        RULE + 'method = "snap"\ngate = "warn"\n[quality]\nmax_kl = 1',
        """\
p.toml:5:8: error[E0205]: 'gate' in [[kv]] takes one of "fail", "revert", found "warn\"
    5 | gate = "warn"
      |        ^^^^^^
help: allowed: fail, revert""",
    ),
    (
        "a gate beside measuring alone",
        RULE + 'method = "snap"\ngate = "fail"\n[quality]\ntokens = 64',
        """\
p.toml:5:8: error[E0211]: gate = "fail" has no bound to hold the rule to
    5 | gate = "fail"
      |        ^^^^^^
help: set max_kl, max_perplexity_ratio, min_top1 or max_time_ratio in [quality], or remove the gate""",
    ),
    (
        "a share above one",
        "version = 1\n[quality]\nmin_top1 = 95",
        """\
p.toml:3:12: error[E0205]: 'min_top1' in [quality] takes a number from 0 to 1, found 95
    3 | min_top1 = 95
      |            ^^""",
    ),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [pytest.param(text, expected, id=name) for name, text, expected in CASES],
)
def test_refusal_text(text: str, expected: str, everything: MethodTable) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, file="p.toml", methods=everything)
    assert str(caught.value) == expected


UNSERVED: list[tuple[dict[str, object], list[str]]] = [
    ({"kv": [{"where": "all", "method": "window"}] * 2}, ["kv[0].method", "kv[1].method"]),
    ({"kv": [{"where": "all", "store": {"method": "int8"}}]}, ["kv[0].store.method"]),
    ({"kv": [{"where": "all", "store": {}}]}, ["kv[0].store"]),
    ({"tokens": [{"where": "all", "method": "auto"}]}, ["tokens[0].method"]),
    ({"tokens": [{"where": "all"}]}, ["tokens[0]"]),
    ({"draft": {"drafters": 3}}, ["draft"]),
    ({"stream": {"weights": "nowhere"}}, ["stream"]),
]


@pytest.mark.parametrize(("data", "places"), UNSERVED, ids=str)
def test_every_use_of_a_table_without_methods_is_named_once(
    data: dict[str, object], places: list[str], methods: MethodTable
) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_from_dict(data, methods)
    errors = getattr(caught.value, "errors", (caught.value,))
    assert [(error.code, error.where) for error in errors] == [("E0212", at) for at in places]
    assert all("this version of effc has none" in error.message for error in errors)


def test_a_method_of_another_table_is_known_where_there_are_none(methods: MethodTable) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_from_dict({"tokens": [{"where": "all", "method": "rtn"}]}, methods)
    assert caught.value.code == "E0204"
    assert caught.value.help == '"rtn" is a method of [[quantize]]'


def test_a_method_may_be_called_auto(everything: MethodTable) -> None:
    quantize = {"auto": everything["quantize"]["rtn"]}
    rule = {"where": "all", "method": "auto"}
    assert policy_from_dict({"quantize": [rule]}, {"quantize": quantize}).quantize


@pytest.mark.parametrize("table", ["quantize", "kv"])
def test_a_key_without_a_name_replaces_no_method(table: str, everything: MethodTable) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_from_dict({table: [{"where": "all", "": 1}]}, everything)
    assert caught.value.code == "E0208"
