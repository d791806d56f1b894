"""Refusals beyond single texts: several errors, dicts, files, and any text at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import PolicyError
from effc.spec.parse import (
    PolicyErrors,
    dump_policy,
    load_policy,
    parse_policy,
    policy_from_dict,
)
from effc.spec.schema import MethodTable


def test_several_errors_are_kept_apart(methods: MethodTable) -> None:
    text = "version = 1\n[target]\nbatch = 0\nthreads = 0\n"
    with pytest.raises(PolicyErrors) as caught:
        parse_policy(text, methods=methods)
    assert [error.code for error in caught.value.errors] == ["E0205", "E0205"]
    listed = caught.value.to_dict()["errors"]
    assert [error["where"]["line"] for error in listed] == [3, 4]  # type: ignore[attr-defined]


def test_windows_line_ends_do_not_move_places(methods: MethodTable) -> None:
    text = "version = 1\r\n\r\n[target]\r\nbatch = 0\r\n"
    with pytest.raises(PolicyError, match=r"^<policy>:4:9: .*\n    4 \| batch = 0\n"):
        parse_policy(text, methods=methods)


DICTS: list[tuple[dict[str, object], str]] = [
    (
        {"quantize": [{"where": "linear", "method": "rtn", "bits": 3}]},
        "quantize[0].bits: error[E0205]: option 'bits' of method \"rtn\" takes 8 or 4, found 3",
    ),
    (
        {"quantize": ({"where": "layer = 2", "method": "rtn"},)},
        "quantize[0].where: error[E0206]: unexpected '=' in the selector\n"
        "help: compare with '=='",
    ),
    (
        {"target": {"contxt": 3}},
        "target.contxt: error[E0202]: unknown key 'contxt' in [target]\n"
        "help: did you mean 'context'? allowed: "
        "allow_reference, batch, context, device, dtype, memory, threads",
    ),
    (
        {"quantize": {"where": "linear", "method": "rtn"}},
        "quantize: error[E0205]: 'quantize' takes a list of tables, found a table\n"
        "help: write [[quantize]], in two brackets, once per rule",
    ),
    ({"version": 7}, "version: error[E0209]: version 7 of the policy language is not supported\n"
     "help: this effc reads version 1"),
    ({"target": {"batch": 10**5000}},
     "target.batch: error[E0205]: 'batch' in [target] takes an integer >= 1, "
     "found a number of more than 64 bits"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), DICTS)
def test_refusal_text_of_a_dict(
    data: dict[str, object], expected: str, methods: MethodTable
) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_from_dict(data, methods)
    assert str(caught.value) == expected


def _refusal(path: Path, methods: MethodTable) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy(path, methods)
    return str(caught.value).replace(str(path), path.name)


def test_missing_file(tmp_path: Path, methods: MethodTable) -> None:
    expected = (
        "p.toml: error[E0210]: the policy cannot be read: there is no such file\n"
        "help: give the path of a TOML file"
    )
    assert _refusal(tmp_path / "p.toml", methods) == expected


def test_folder(tmp_path: Path, methods: MethodTable) -> None:
    assert _refusal(tmp_path, methods) == (
        f"{tmp_path.name}: error[E0210]: the policy cannot be read: it is a folder\n"
        "help: name the policy file in it"
    )


def test_file_that_is_not_utf8(tmp_path: Path, methods: MethodTable) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"version = 1 # caf\xe9\n")
    assert _refusal(path, methods) == (
        "p.toml: error[E0210]: the policy cannot be read: it is not UTF-8 text: byte 17 is 0xe9\n"
        "help: save the file as UTF-8"
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_file_without_permission(tmp_path: Path, methods: MethodTable) -> None:
    path = tmp_path / "p.toml"
    path.write_text("version = 1\n")
    path.chmod(0)
    expected = (
        "p.toml: error[E0210]: the policy cannot be read: Permission denied\n"
        "help: check its permissions"
    )
    assert _refusal(path, methods) == expected


def test_path_with_a_nul(methods: MethodTable) -> None:
    with pytest.raises(PolicyError, match="E0210"):
        load_policy("a\0b.toml", methods)


def test_policy_of_another_type(methods: MethodTable) -> None:
    with pytest.raises(
        PolicyError, match="a policy is a path, a dict or an effc.Policy, found int"
    ):
        load_policy(3, methods)  # type: ignore[arg-type]


def test_lists_nested_too_deeply(methods: MethodTable) -> None:
    with pytest.raises(PolicyError, match="lists are nested too deeply"):
        parse_policy("a = " + "[" * 5000 + "]" * 5000, methods=methods)


FRAGMENTS = [
    "version = 1", "version = 2", "[target]", "[[target]]", "[quality]", "[[quantize]]", "[[kv]]",
    'where = "linear"', 'where = "layer in"', 'where = """\nlinear or\nnorm"""', 'method = "rtn"',
    'method = "calibrated"', "samples = 3", "damping = 1", "bits = 8", "bits = [8, {a = 1}]",
    "group = 64", "group = 1979-05-27", 'memory = "1 GiB"', 'memory = "1 / 0 * 1 GiB"', "batch = 3",
    "a.b.c = 1", "target.batch = 2", "optional = true", "= 3", "'", "#", "",
    "[[tokens]]", "[draft]", "[stream]", "[kv.store]", 'method = "window"', 'method = "auto"',
    'method = "int8"', 'budget = "25% of tokens"', 'budget = "of 25%"', "budget = -1.5",
    'store = { method = "int8", key_bits = 6 }', "store = { key_bits = [] }", "store = 1",
    'gate = "fail"', "gate = {}", "max_kl = 1", "min_top1 = 2", 'drafters = ["a"]', "budget = nan",
    'select = "ucb"', 'share = "5%"', 'verify = "loose"', 'weights = "host"', "version = [1]",
    "drafters = [1]",
]  # fmt: skip


TEXTS = st.lists(st.sampled_from(FRAGMENTS)).map("\n".join)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(text=st.text(max_size=40) | TEXTS | TEXTS.map("version = 1\n{}".format))
def test_any_text_is_a_policy_or_refused(text: str, everything: MethodTable) -> None:
    try:
        policy = parse_policy(text, methods=everything)
    except PolicyError as error:
        assert str(error)
    else:
        assert parse_policy(dump_policy(policy), methods=everything) == policy
