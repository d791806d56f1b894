"""`effc run`: prompts in, text or JSON out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effc.cli import main
from effc.cli.stream import TextStream

Make = Callable[..., Any]
SHORT = ["--max-new-tokens", "3"]


def test_a_prompt_is_continued(
    model: Make, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = model(tokenizer)
    assert main(["run", "out", "--prompt", "abc", *SHORT]) == 0
    text, errors = capsys.readouterr()
    assert text == "def\n"
    assert errors == "note: the context ended\n"
    ids, options = made.calls[0]
    assert ids == [[99, 0, 1, 2]]
    assert options["do_sample"] is False


def test_json_has_everything(
    model: Make, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model(tokenizer)
    assert main(["run", "out", "--prompt", "abc", "--json", *SHORT]) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    assert json.loads(text) == {
        "tokens": [3, 4, 5],
        "text": "def",
        "finish_reason": "length",
        "timings": {"prefill_s": 0.5},
        "counters": {"pages": 1},
        "notes": ["the context ended"],
    }


def test_a_seed_without_sampling_is_said_to_be_idle(
    model: Make, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model(tokenizer)
    idle = "--seed changes nothing here: the choice is greedy"
    for flags, notes in ([], [idle]), (["--temperature", "0"], [idle]), (["--top-k", "4"], []):
        assert main(["run", "out", "--prompt", "abc", "--seed", "4", "--json", *flags]) == 0
        assert json.loads(capsys.readouterr().out)["notes"] == [*notes, "the context ended"]


def test_ids_need_no_tokenizer(model: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = model()
    assert main(["run", "out", "--prompt-ids", "5, 6,7", *SHORT]) == 0
    assert capsys.readouterr().out == "8,9,10\n"
    assert made.calls[0][0] == [[5, 6, 7]]
    assert main(["run", "out", "--prompt-ids", "5", "--json", *SHORT]) == 0
    assert json.loads(capsys.readouterr().out)["text"] is None


def test_a_text_needs_a_tokenizer(model: Make, capsys: pytest.CaptureFixture[str]) -> None:
    model()
    assert main(["run", "out", "--prompt", "abc"]) == 2
    assert "--prompt-ids 1,2,3" in capsys.readouterr().err


def test_the_prompt_comes_from_a_file_or_standard_input(
    model: Make, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model(tokenizer)
    (tmp_path / "p.txt").write_text("cab")
    assert main(["run", "out", "--prompt-file", str(tmp_path / "p.txt"), *SHORT]) == 0
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"bed")))
    assert main(["run", "out", "--prompt-file", "-", *SHORT]) == 0
    assert [call[0] for call in made.calls] == [[[99, 2, 0, 1]], [[99, 1, 4, 3]]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "exactly one of"),
        (["--prompt", "a", "--prompt-ids", "1"], "exactly one of"),
        (["--prompt-ids", "1;2"], "write whole numbers with commas"),
        (["--prompt-ids", ""], "write whole numbers with commas"),
        (["--prompt-file", "/nowhere/p.txt"], "/nowhere/p.txt: error"),
    ],
)
def test_a_wrong_prompt_is_refused_before_loading(
    arguments: list[str],
    expected: str,
    install: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    install("effc.api")
    assert main(["run", "out", *arguments]) == 2
    errors = capsys.readouterr().err
    assert "E0101" in errors
    assert expected in errors


def test_bytes_that_are_no_text_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").write_bytes(b"ab\xff")
    assert main(["run", "out", "--prompt-file", str(tmp_path / "p")]) == 2
    assert "not UTF-8 text (byte 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"do_sample": False}),
        (["--temperature", "0"], {"do_sample": False}),
        (["--temperature", "0.7"], {"do_sample": True, "temperature": 0.7}),
        (["--top-p", "0.9"], {"do_sample": True, "top_p": 0.9}),
        (["--top-k", "5", "--min-p", "0.1"], {"do_sample": True, "top_k": 5, "min_p": 0.1}),
    ],
)
def test_sampling_is_asked_for_by_its_arguments(
    model: Make, flags: list[str], expected: dict[str, Any]
) -> None:
    made = model()
    assert main(["run", "out", "--prompt-ids", "1", *SHORT, *flags]) == 0
    options = made.calls[0][1]
    names = ("do_sample", "temperature", "top_k", "top_p", "min_p")
    assert {name: options[name] for name in names if name in options} == expected


def test_other_arguments_are_passed_on(model: Make) -> None:
    made = model()
    flags = ["--seed", "7", "--stop", "x", "--stop", "y", "--repetition-penalty", "1.5"]
    assert main(["run", "out", "--prompt-ids", "1", *SHORT, *flags]) == 0
    options = made.calls[0][1]
    assert (options["seed"], options["stop_strings"]) == (7, ["x", "y"])
    assert options["repetition_penalty"] == 1.5


def test_an_interrupted_generation_shows_what_it_has(
    model: Make, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model(tokenizer, finish="interrupted")
    assert main(["run", "out", "--prompt", "abc", *SHORT]) == 130
    text, errors = capsys.readouterr()
    assert text == "def\n"
    assert errors.endswith("interrupted\n")


def test_a_terminal_sees_tokens_once(
    model: Make,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model(tokenizer)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["run", "out", "--prompt", "abc", *SHORT]) == 0
    assert capsys.readouterr().out == "def\n"


def test_a_chat_template_wraps_the_prompt(
    model: Make, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = model(tokenizer)
    template = tmp_path / "chat_template.jinja"
    made.program.info.files["chat_template.jinja"] = template
    template.write_text("{% for m in messages %}z{{ m.content }}{% endfor %}y")
    assert main(["run", "out", "--prompt", "abc", "--chat", *SHORT]) == 0
    assert made.calls[0][0] == [[25, 0, 1, 2, 24]]
    for attack in (
        "{{ messages.__class__.__mro__ }}",
        "{% for %}",
        "{{ raise_exception('no') }}",
        "{{ 1 + 'a' }}",
    ):
        template.write_text(attack)
        assert main(["run", "out", "--prompt", "abc", "--chat", *SHORT]) == 2
        assert "E0309" in capsys.readouterr().err
    del made.program.info.files["chat_template.jinja"]
    assert main(["run", "out", "--prompt", "abc", "--chat", *SHORT]) == 2
    assert "no chat template" in capsys.readouterr().err


class Bytes:
    """One token per byte of UTF-8; broken characters decode to the replacement character."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語", "a😀b\n", ""])
def test_streamed_text_is_the_decoded_text(text: str) -> None:
    file = io.StringIO()
    stream = TextStream(Bytes(), file)
    stream.put([1, 2, 3])
    for byte in text.encode():
        stream.put([byte])
        assert "\ufffd" not in file.getvalue()
    stream.end()
    assert file.getvalue() == text + "\n"


def test_a_cut_character_is_shown_at_the_end() -> None:
    file = io.StringIO()
    stream = TextStream(Bytes(), file)
    stream.put([])
    for byte in "aé".encode()[:-1]:
        stream.put([byte])
    stream.end()
    assert file.getvalue() == "a\ufffd\n"


def test_without_a_decoder_ids_are_streamed() -> None:
    file = io.StringIO()
    stream = TextStream(None, file)
    for tokens in ([9, 9], [1], [22], [3]):
        stream.put(tokens)
    stream.end()
    assert file.getvalue() == "1,22,3\n"
