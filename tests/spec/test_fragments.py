"""Policies in pieces: what wins, what is appended, and where every mistake is said to stand."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import PolicyError, Span
from effc.spec.fragments import Fragment, merge
from effc.spec.parse import load_policy, parse_policy
from effc.spec.places import DictPlaces, scan
from effc.spec.reader import read_policy
from effc.spec.schema import Choice, MethodTable, Policy, Quantity

SPEC = """\
version = 1
[target]
batch = 2
memory = "3 GiB"
[[quantize]]
where = "linear and layer > 2"
method = "rtn"
group = "row"
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(SPEC)
    return path


def refusal(
    methods: MethodTable, spec: Any, *overrides: str, presets: tuple[str, ...] = ()
) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        load_policy(spec, methods, presets=presets, overrides=overrides)
    return caught.value


def test_rules_are_appended_in_order(spec: Path, methods: MethodTable) -> None:
    policy = load_policy(spec, methods, presets=["int4", "int8"])
    assert [rule.options["group"] for rule in policy.quantize] == [32, "row", "row"]
    assert [rule.index for rule in policy.quantize] == [0, 1, 2]
    assert [str(rule.where) for rule in policy.quantize][2] == "linear and layer > 2"


def test_every_rule_keeps_its_place(spec: Path, methods: MethodTable) -> None:
    first, last = load_policy(spec, methods, presets=["int4"]).quantize
    assert isinstance(first.span, Span) and first.span.file.endswith("presets/int4.toml")
    assert last.span == Span(str(spec), 5, 3, 8, "[[quantize]]")
    assert last.where_span == Span(str(spec), 6, 9, 22, 'where = "linear and layer > 2"')


def test_settings_merge_key_by_key(spec: Path, methods: MethodTable) -> None:
    policy = load_policy(
        spec, methods, presets=["gated"], overrides=["target.batch=3", "quality.max_kl=0.1"]
    )
    assert (policy.target.batch, policy.target.memory) == (3, Quantity.parse("3 GiB"))
    assert policy.quality is not None
    assert (policy.quality.max_kl, policy.quality.min_top1) == (0.1, 0.9)


def test_one_piece_keeps_its_text(spec: Path, methods: MethodTable) -> None:
    alone = load_policy(spec, methods)
    assert (alone.text, alone.source) == (SPEC, str(spec))
    several = load_policy(spec, methods, presets=["int4"])
    assert several.source is None
    assert parse_policy(several.text, methods=methods) == several
    overridden = load_policy(spec, methods, overrides=["target.batch=2"])
    assert overridden == alone
    assert overridden.text != SPEC and overridden.source == str(spec)


VALUES = [
    ("quantize.0.bits=8", lambda p: p.quantize[0].options["bits"], 8),
    ("quantize.0.optional=true", lambda p: p.quantize[0].optional, True),
    ("quantize.0.where=all", lambda p: str(p.quantize[0].where), "all"),
    ('quantize.0.where="linear or norm"', lambda p: str(p.quantize[0].where), "linear or norm"),
    ("quantize.0.where=linear or norm", lambda p: str(p.quantize[0].where), "linear or norm"),
    ('target.memory="1 GiB"', lambda p: p.target.memory, Quantity.parse("1 GiB")),
    ("target.memory=1 GiB", lambda p: p.target.memory, Quantity.parse("1 GiB")),
    ("target.device=cuda:sm90", lambda p: p.target.device, "cuda:sm90"),
    (" target . context = 1_024 ", lambda p: p.target.context, 1024),
    ("quality.data=a=b.txt", lambda p: p.quality.data, "a=b.txt"),
    ("quality.max_kl=1e-3", lambda p: p.quality.max_kl, 0.001),
    ('target={device = "cuda", threads = 2}', lambda p: (p.target.device, p.target.batch),
     ("cuda", 2)),
    ('quantize=[{where = "norm", method = "rtn"}]', lambda p: len(p.quantize), 2),
    ('kv=[{where = "all", store = {method = "int8", recent = 4}}]', lambda p: p.kv[0].store,
     Choice("int8", {"recent": 4})),
    ('draft={drafters = ["a"], select = "ucb"}', lambda p: p.draft.drafters, ("a",)),
    ("stream.weights=disk", lambda p: p.stream.weights, "disk"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "read", "expected"), VALUES, ids=[override for override, _, _ in VALUES]
)
def test_override(
    override: str,
    read: Callable[[Policy], object],
    expected: object,
    spec: Path,
    everything: MethodTable,
) -> None:
    assert read(load_policy(spec, everything, overrides=[override])) == expected


def test_overrides_reach_into_a_store_and_make_one(everything: MethodTable) -> None:
    rule = {"where": "all", "store": {"method": "int8", "recent": 1}}
    policy = load_policy({"kv": [rule]}, everything, overrides=["kv.0.store.recent=9"])
    assert policy.kv[0].store == Choice("int8", {"recent": 9})
    assert rule["store"] == {"method": "int8", "recent": 1}
    snap = {"where": "all", "method": "snap"}
    policy = load_policy({"kv": [snap]}, everything, overrides=["kv.0.store.method=int8"])
    assert policy.kv[0].store == Choice("int8")


def test_the_last_override_wins(methods: MethodTable) -> None:
    policy = load_policy(None, methods, overrides=["target.batch=2", "target.batch=3"])
    assert policy.target.batch == 3


def test_rules_of_presets_can_be_overridden(methods: MethodTable) -> None:
    policy = load_policy(None, methods, presets=["int4"], overrides=["quantize.0.group=row"])
    assert policy.quantize[0].options == {"bits": 4, "group": "row"}


REFUSED = [
    ("target.contex=3",
     "--set target.contex=3: error[E0202]: unknown key 'contex' in [target]\n"
     "help: did you mean 'context'? allowed: "
     "allow_reference, batch, context, device, dtype, memory, threads"),
    ("targt.context=3",
     "--set targt.context=3: error[E0202]: unknown key 'targt' in the policy\n"
     "help: did you mean 'target'? allowed: "
     "draft, kv, quality, quantize, stream, target, tokens, version"),
    ("quantize.0.bit=8",
     "--set quantize.0.bit=8: error[E0203]: unknown option 'bit' for method \"rtn\"\n"
     "help: did you mean 'bits'? allowed: "
     "activations, bits, gate, group, method, optional, symmetric, where"),
    ("quantize.0.bits=3",
     "--set quantize.0.bits=3: error[E0205]: "
     "option 'bits' of method \"rtn\" takes 8 or 4, found 3"),
    ("quantize.1.bits=8",
     "--set quantize.1.bits=8: error[E0202]: there is no rule 1 in [[quantize]]: "
     "the policy has 1\nhelp: rules count from 0: for example quantize.0.where=all"),
    ("kv.0.budget=8",
     "--set kv.0.budget=8: error[E0202]: there is no rule 0 in [[kv]]: the policy has 0\n"
     "help: give --spec or --preset"),
    ("quantize.bits=8",
     "--set quantize.bits=8: error[E0202]: [[quantize]] is a list of rules: "
     "give the number of one, and a key of it\nhelp: for example quantize.0.where=all"),
    ("quantize.0={}",
     "--set quantize.0={}: error[E0202]: [[quantize]] is a list of rules: "
     "give the number of one, and a key of it\nhelp: for example quantize.0.where=all"),
    ("quantize.0.where.x=1",
     "--set quantize.0.where.x=1: error[E0205]: quantize.0.where takes a value, no keys, "
     'found "linear and layer > 2"'),
    ("target.memory.x=1",
     "--set target.memory.x=1: error[E0205]: 'memory' in [target] takes bytes with a unit, "
     'for example "3 GiB", found a table'),
    ("target.memory=3 gib",
     "--set target.memory=3 gib: error[E0207]: unknown unit 'gib'\n"
     "help: did you mean 'GiB'? allowed: %, GB, GiB, KB, KiB, MB, MiB"),
    ("quantize.0.where=liner",
     "--set quantize.0.where=liner: error[E0206]: unknown word 'liner' in the selector\n"
     "help: did you mean 'linear'? allowed: all, attention, conv, embedding, experts, heads, "
     "kv_heads, layer, layers, linear, name, norm, params, stage, width"),
    ("target=3",
     "--set target=3: error[E0205]: 'target' takes a table, found 3\n"
     "help: write [target], in one bracket, once"),
    ("version=2",
     "--set version=2: error[E0209]: version 2 of the policy language is not supported\n"
     "help: this effc reads version 1"),
    ("target.context",
     "--set target.context: error[E0101]: there is a key, and no value for it\n"
     "help: write KEY=VALUE, for example --set target.context=4096"),
    (".batch=2",
     "--set .batch=2: error[E0101]: a part of the key is empty\n"
     "help: write KEY=VALUE, for example --set target.context=4096"),
    ("target.batch=2\nx=3",
     "--set target.batch=2\nx=3: error[E0205]: 'batch' in [target] takes an integer >= 1, "
     'found "2\nx=3"'),
]  # fmt: skip


@pytest.mark.parametrize(("override", "expected"), REFUSED, ids=[o for o, _ in REFUSED])
def test_refused_override(override: str, expected: str, spec: Path, methods: MethodTable) -> None:
    assert str(refusal(methods, spec, override)) == expected


def test_mistakes_keep_their_files_and_their_order(tmp_path: Path, methods: MethodTable) -> None:
    path = tmp_path / "a.toml"  # sorts before the preset by name, and is read after it
    path.write_text("version = 1\n[target]\nbatch = 0\n[quality]\nmax_kl = -1\n")
    error = refusal(methods, path, "target.threads=0", "quantize.0.bit=3", presets=("int4",))
    errors: tuple[PolicyError, ...] = getattr(error, "errors", ())
    assert [str(e.where) for e in errors] == [
        f"{path}:3:9",
        f"{path}:5:10",
        "--set quantize.0.bit=3",
        "--set target.threads=0",
    ]


def test_a_table_that_an_override_makes_stands_at_the_override(everything: MethodTable) -> None:
    data = {"kv": [{"where": "all", "method": "snap"}]}
    error = refusal(everything, data, "kv.0.store.recent=1")
    assert (error.code, error.where) == ("E0208", "--set kv.0.store.recent=1")


def test_what_is_overridden_twice_stands_at_the_last_override(everything: MethodTable) -> None:
    data = {"kv": [{"where": "all", "store": {"method": "int8"}}]}
    whole = 'kv.0.store={method = "int8", recent = "x"}'
    assert refusal(everything, data, "kv.0.store.recent=1", whole).where == f"--set {whole}"


def test_pieces_are_reported_in_the_order_of_reading(methods: MethodTable) -> None:
    first = fragment("version = 1\n\n\n[target]\nbatch = 0", "z.toml")
    second = fragment("version = 1\n[quality]\nmax_kl = -1", "a.toml")
    with pytest.raises(PolicyError) as caught:
        read_policy(merge([first, second]), methods, source=None, text="")
    errors: tuple[PolicyError, ...] = getattr(caught.value, "errors", ())
    assert [str(error.where) for error in errors] == ["z.toml:5:9", "a.toml:3:10"]


@pytest.mark.parametrize("number", ["-1", "x", "9" * 5000, "\u0663"])
def test_rules_are_numbered_from_zero(number: str, methods: MethodTable) -> None:
    error = refusal(methods, None, f"quantize.{number}.bits=8", presets=("int4",))
    assert error.code == "E0202" and "give the number of one" in error.message


def test_a_mistake_that_is_overridden_is_none(tmp_path: Path, methods: MethodTable) -> None:
    path = tmp_path / "p.toml"
    path.write_text("version = 1\n[target]\nbatch = 0\n")
    assert load_policy(path, methods, overrides=["target.batch=1"]) == Policy()


def test_a_missing_option_is_missed_where_its_rule_stands(
    tmp_path: Path, methods: MethodTable
) -> None:
    path = tmp_path / "p.toml"
    path.write_text('version = 1\n[[quantize]]\nwhere = "all"\nmethod = "calibrated"\n')
    error = refusal(methods, path, presets=("int8",))
    assert error.code == "E0208" and str(error.where) == f"{path}:2:3"


@pytest.mark.parametrize(
    ("first", "second", "places"),
    [
        ('target = 3', "[target]\nbatch = 1", ["a.toml:2:10"]),
        ("[target]\nbatch = 1", 'target = 3', ["b.toml:2:10"]),
        ("[quantize]", "[[quantize]]", ["a.toml:2:2"]),
        ("[[quantize]]", "quantize = [1]", ["b.toml:2:12"]),
        ("unknown = 1", "[unknown]", ["b.toml:2:2"]),
        ("[[draft]]", "[draft]", ["a.toml:2:3"]),
    ],
)  # fmt: skip
def test_a_table_of_the_wrong_shape_is_reported_where_it_stands(
    first: str, second: str, places: list[str], tmp_path: Path, methods: MethodTable
) -> None:
    texts = {"a.toml": f"version = 1\n{first}", "b.toml": f"version = 1\n{second}"}
    pieces = [fragment(text, name) for name, text in texts.items()]
    with pytest.raises(PolicyError) as caught:
        read_policy(merge(pieces), methods, source=None, text="")
    errors = getattr(caught.value, "errors", (caught.value,))
    assert [str(error.where) for error in errors] == places


def fragment(text: str, file: str = "p.toml") -> Fragment:
    return Fragment(tomllib.loads(text), scan(text, file), file, text)


@pytest.mark.parametrize("text", ["", "version = 2", 'version = "1"', "version = true"])
def test_every_piece_has_its_version(text: str) -> None:
    pieces = [fragment("version = 1", "a.toml"), fragment(text, "b.toml")]
    with pytest.raises(PolicyError, match=r"^b\.toml:1:"):
        merge(pieces)
    with pytest.raises(PolicyError, match=r"^b\.toml:1:"):
        merge(pieces[::-1])


def test_pieces_are_left_as_they_were() -> None:
    data = {"version": 1, "kv": [{"store": {"recent": 1}}], "target": {"batch": 1}}
    piece = Fragment(data, DictPlaces())
    merged = merge([piece, piece], ["kv.0.store.recent=2", "target.batch=2"])
    assert data == {"version": 1, "kv": [{"store": {"recent": 1}}], "target": {"batch": 1}}
    assert merged.data["kv"] == [{"store": {"recent": 2}}, {"store": {"recent": 1}}]


KEYS = st.sampled_from(
    ["target", "quantize", "kv", "version", "0", "1", "-1", "where", "store", "batch", "", " "]
)
RIGHT = st.text(max_size=12) | st.sampled_from(["8", "[]", "{}", '"x"', "[{}]", "1\nversion=2"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    overrides=st.lists(
        st.text(max_size=12)
        | st.builds("{}={}".format, st.lists(KEYS, max_size=4).map(".".join), RIGHT),
        max_size=4,
    )
)
def test_any_override_is_read_or_refused(overrides: list[str], everything: MethodTable) -> None:
    try:
        policy = load_policy(None, everything, presets=["int4", "gated"], overrides=overrides)
    except PolicyError as error:
        assert str(error)
    else:
        assert parse_policy(policy.text, methods=everything) == policy
