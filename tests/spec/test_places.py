"""The scanner of places agrees with `tomllib` about every key and value."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import Span
from effc.spec.places import DictPlaces, KeyPath, TextPlaces, narrowed, scan

_INSIDE = st.text("ab ,#[]{}=.é", max_size=6)

_LITERALS = st.sampled_from(
    ["0", "-17", "+3", "1_000", "0xDEAD_beef", "0o17", "0b101", "3.14", "-2.5e-3", "6E2", "inf"]
    + ["true", "false", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5"]
    + ['"a\\"b\\\\"', '"\\u00e9\\t"', "'C:\\dir'", '""', "''", '"""x\\\n   y"""']
    + ['"""two "quotes" inside"""', '"""ends with quotes"""""', "'''it's '' fine'''''"]
    + ["'''\nraw \\ text\n'''", '"""\n[not.a.header]\nkey = 1\n"""', '"# no comment"']
)
_STRINGS = st.builds("{0}{1}{0}".format, st.sampled_from(['"', "'", '"""', "'''"]), _INSIDE)
_SPACE = st.sampled_from(["", " ", "\t", "  "])
_GAP = st.sampled_from(["", " ", "\n", " # a ] comment, with = signs\n ", "\n\n\t"])


_SPELLINGS = ["k{}", "{}", "K-{}_", '"k {}"', "'k.{}'", '"\\u00e9\\"{}"', '"#{}]"']


class _Names:
    """Keys that never repeat, in all their spellings."""

    def __init__(self) -> None:
        self.count = 0

    def next(self, draw: st.DrawFn) -> str:
        self.count += 1
        return draw(st.sampled_from(_SPELLINGS)).format(self.count)


def _value(draw: st.DrawFn, names: _Names, depth: int) -> str:
    shape = draw(st.sampled_from(["literal", "string", "list", "table"] if depth else ["literal"]))
    if shape == "list":
        items = [_value(draw, names, depth - 1) for _ in range(draw(st.integers(0, 3)))]
        padded = [draw(_GAP) + item + draw(_GAP) for item in items]
        comma = "," if items and draw(st.booleans()) else ""
        return f"[{','.join(padded)}{comma}{draw(_GAP)}]"
    if shape == "table":
        pairs = [_pair(draw, names, depth - 1) for _ in range(draw(st.integers(0, 3)))]
        return "{" + draw(_SPACE) + (draw(_SPACE) + ",").join(pairs) + draw(_SPACE) + "}"
    return draw(_STRINGS if shape == "string" else _LITERALS)


def _pair(draw: st.DrawFn, names: _Names, depth: int) -> str:
    parts = [names.next(draw) for _ in range(draw(st.integers(1, 3)))]
    key = f"{draw(_SPACE)}.{draw(_SPACE)}".join(parts)
    return f"{draw(_SPACE)}{key}{draw(_SPACE)}={draw(_SPACE)}{_value(draw, names, depth)}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    names = _Names()
    lines: list[str] = []

    def pairs() -> None:
        for _ in range(draw(st.integers(0, 3))):
            lines.append(_pair(draw, names, 2) + draw(st.sampled_from(["", " ", " # note"])))
        lines.extend(draw(st.sampled_from([[], [""], ["# [comment]"]])))

    pairs()
    for _ in range(draw(st.integers(0, 3))):
        name = names.next(draw)
        child = names.next(draw)
        headers = draw(
            st.sampled_from(
                [
                    [f"[{name}]"],
                    [f"[ {name} . {child} ]", f"[{name}]"],
                    [f"[[{name}]]", f"[[ {name} ]] # again", f"[{name}.{child}]"],
                    [f"[[{name}]]", f"[[{name}.{child}]]", f"[[{name}.{child}]]", f"[[{name}]]"],
                ]
            )
        )
        for header in headers:
            lines.append(draw(_SPACE) + header)
            pairs()
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return newline.join(lines) + draw(st.sampled_from(["", newline]))


def _nodes(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    for step, item in items:
        yield (*path, step), item
        if isinstance(item, dict | list):
            yield from _nodes(item, (*path, step))


def _assert_agrees(text: str) -> None:
    nodes = dict(_nodes(tomllib.loads(text)))
    places = scan(text, "policy.toml")
    assert places.keys.keys() | places.values.keys() == nodes.keys()
    for path, extent in places.values.items():
        source = places.text[extent.start : extent.end]
        assert tomllib.loads(f"x = {source}")["x"] == nodes[path]
    for path, extent in places.keys.items():
        name = next(step for step in reversed(path) if isinstance(step, str))
        source = places.text[extent.start : extent.end]
        assert tomllib.loads(f"{source} = 0") == {name: 0}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(documents())
def test_scanner_agrees_with_tomllib(text: str) -> None:
    _assert_agrees(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "a.b.c = 1\na.d = 2",
        "[x.y]\n[x]\nz = {a = [1, [2, {b = 3}]], c.d = 4}",
        "[[a]]\n[a.b]\nc = 1\n[[a.b.d]]\n[[a.b.d]]\ne = 2\n[[a]]\n[a.b]\nf = 3",
        'a = """"quoted"""" # end\nb = 1979-05-27 07:32:00-07:00 # date\n',
    ],
)
def test_scanner_agrees_on_examples(text: str) -> None:
    _assert_agrees(text)


@pytest.fixture
def places() -> TextPlaces:
    return scan('version = 1\n\n[target]\n  memory = "3 GiB"\n[[quantize]]\n', "p.toml")


def test_span_marks_the_value(places: TextPlaces) -> None:
    expected = Span("p.toml", 4, 12, 7, '  memory = "3 GiB"')
    assert places.value(("target", "memory")) == expected


def test_span_marks_the_key_and_the_header(places: TextPlaces) -> None:
    assert str(places.key(("target", "memory"))) == "p.toml:4:3"
    assert str(places.key(("quantize", 0))) == "p.toml:5:3"


def test_span_of_a_missing_key_is_the_first_line(places: TextPlaces) -> None:
    assert str(places.key(())) == "p.toml:1:1"


def test_value_of_several_lines_is_marked_on_the_first() -> None:
    place = scan('a = """one\ntwo"""', "p.toml").value(("a",))
    assert place == Span("p.toml", 1, 5, 6, 'a = """one')


def test_narrowed_points_inside_a_plain_string(places: TextPlaces) -> None:
    value = places.value(("target", "memory"))
    assert narrowed(value, "3 GiB", 2, 5) == Span("p.toml", 4, 15, 3, '  memory = "3 GiB"')


def test_narrowed_keeps_the_whole_of_an_escaped_string() -> None:
    value = scan(r'where = "name(\"a\") x"', "p.toml").value(("where",))
    assert narrowed(value, 'name("a") x', 10, 11) == value


def test_key_paths_name_the_place_in_a_dict() -> None:
    assert DictPlaces().value(("quantize", 0, "where")) == "quantize[0].where"
    assert DictPlaces().key(()) == "policy"
