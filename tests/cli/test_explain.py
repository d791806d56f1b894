"""`effc explain`: one page per code, each true; methods and passes in their own words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from effc.cli import main
from effc.diagnostics import CATALOGUE, PolicyError
from effc.explain.codes import Page, blocks, pages
from effc.explain.topics import SEMANTICS, method_names, methods, passes
from effc.passes import registry
from effc.spec.parse import load_policy, parse_policy

ROOT = Path(__file__).parents[2]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def test_there_is_one_page_per_code_in_order() -> None:
    assert list(pages()) == list(CATALOGUE)
    assert {code: page.title for code, page in pages().items()} == CATALOGUE


def test_every_block_has_a_heading() -> None:
    assert list(blocks()) == sorted({code[:3] for code in CATALOGUE})


def test_pages_are_written_as_sentences() -> None:
    for page in pages().values():
        for text in (page.happened, page.why, page.remedy):
            assert text[0].isupper() or text.startswith(("effc", "`", "torch")), page.code
            assert text[-1] in ".`)", f"{page.code}: {text}"


def test_pages_name_no_unknown_code_or_variable() -> None:
    from effc.settings import VARIABLES

    known = {variable.name for variable in VARIABLES.values()}
    for page in pages().values():
        text = " ".join(vars(page).values())
        assert set(re.findall(r"E\d{4}", text)) <= set(CATALOGUE)
        assert set(re.findall(r"EFFC_[A-Z_]*[A-Z]", text)) <= known


def test_commands_in_the_pages_exist() -> None:
    from effc.cli.app import COMMANDS

    for page in pages().values():
        text = f"{page.remedy} {page.example if page.language == 'sh' else ''}"
        named = set(re.findall(r"\beffc ([a-z]+)(?= |`|$)", text)) & {
            "compile",
            "run",
            *_verbs(text),
        }
        assert named <= set(COMMANDS), page.code


def _verbs(text: str) -> list[str]:
    """What follows `effc` inside backticks, where only commands stand."""
    return re.findall(r"`effc ([a-z]+)", text)


POLICY_PAGES = [page for code, page in pages().items() if code.startswith("E02")]


@pytest.mark.parametrize("page", POLICY_PAGES, ids=lambda page: page.code)
def test_the_example_of_a_policy_page_gives_its_error(page: Page, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        if page.language == "sh":
            load_policy(tmp_path / page.example.rpartition(" ")[2], registry.method_infos())
        else:
            parse_policy(page.example, methods=registry.method_infos())
    assert caught.value.code == page.code


@pytest.mark.parametrize(
    "page",
    [p for p in pages().values() if p.language == "toml" and not p.code.startswith("E02")],
    ids=lambda page: page.code,
)
def test_other_policies_in_the_pages_are_valid(page: Page) -> None:
    parse_policy(page.example, methods=registry.method_infos())


@pytest.mark.parametrize(
    "page", [p for p in pages().values() if p.language == "json"], ids=lambda page: page.code
)
def test_json_in_the_pages_is_json(page: Page) -> None:
    json.loads(page.example)


@pytest.mark.parametrize("topic", ("E0203", "e0203"))
def test_a_code_is_explained(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, topic)
    assert text.startswith("E0203: unknown option for a method\n\nWhat happened: ")
    assert "    bit = 4\n" in text and "What to do: " in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("topic", "near"),
    (("e203", "E0203"), ("203", "E0203"), ("E02O3", "E0203"), ("rise-rope", "raise-rope")),
)
def test_a_near_miss_is_named(topic: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", topic]) == 2
    error = capsys.readouterr().err
    assert f"rule {topic!r}" in error and f"did you mean '{near}'?" in error


def test_what_resembles_nothing_gets_no_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "qqqq"]) == 2
    assert capsys.readouterr().err.endswith("help: `effc explain` lists them\n")


def test_everything_registered_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    located = (*registry.CANONICAL, *registry.TRANSFORMING, *registry.LOWERING)
    assert set(passes()) == {registry.locate(where).name for where in located}
    for topic in passes().values():
        cls = next(registry.locate(w) for w in located if registry.locate(w).name == topic.name)
        assert topic.stage == cls.stage.name.lower()
        assert topic.semantics == cls.semantics.value and topic.semantics in SEMANTICS
        assert "Before:" in topic.text and "After:" in topic.text, topic.name
        assert [rule.name for rule in topic.rules] == [r.name for r in getattr(cls, "rules", ())]
        shown = said(capsys, topic.name)
        assert topic.text in shown and SEMANTICS[topic.semantics] in shown
        for rule in topic.rules:
            # Two passes may apply one rule: its page is that of one of them.
            owners = [t for t in passes().values() if rule in t.rules]
            assert said(capsys, rule.name) in [said(capsys, t.name) for t in owners]


def test_methods_are_explained_by_their_files(capsys: pytest.CaptureFixture[str]) -> None:
    known = {name for table in registry.method_infos().values() for name in table}
    assert set(method_names()) == known
    for topic in (topic for name in method_names() for topic in methods(name)):
        text = said(capsys, topic.info.name)
        assert topic.info.summary in text and topic.text and topic.text in text


def test_without_a_topic_all_codes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys)
    assert all(f"  {code}  {title}\n" in text for code, title in CATALOGUE.items())
    assert "raise-rope" in text and "rtn" in text


@pytest.mark.parametrize(
    ("arguments", "key"),
    (
        (["E0203"], "happened"),
        (["rtn"], "table"),
        (["raise-rope"], "semantics"),
        ([], "codes"),
        (["--matrix"], "reasons"),
    ),
)
def test_json(arguments: list[str], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert key in json.loads(said(capsys, *arguments, "--json"))


def test_the_matrix_is_a_table_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    from effc.spec.legality import matrix_rows, reasons

    text = said(capsys, "--matrix")
    header, rows = matrix_rows()
    assert all(str(cell) in text for row in (header, *rows) for cell in row)
    flat = " ".join(text.split())
    assert all(" ".join(reason.split()) in flat for _, _, reason in reasons())


def test_the_matrix_takes_no_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "rtn", "--matrix"]) == 2
    assert "error[E0101]" in capsys.readouterr().err


@pytest.mark.parametrize("topic", ("E0203", "rtn", "raise-rope"))
def test_explaining_loads_no_torch(topic: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from effc.cli import main; sys.exit(main(['explain', {topic!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
