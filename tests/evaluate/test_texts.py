"""Texts to compare models on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from effc.diagnostics import EffcError
from effc.evaluate.subject import Subject
from effc.evaluate.texts import EvaluationText, evaluation_text, random_text, text_of_file
from effc.ir.program import ModelInfo
from effc.spec.schema import QualitySpec
from tests.evaluate.models import CONTEXT, canonical_decoder, lowered

INFO = ModelInfo("toy", "toy", context=1024, vocabulary=1000, bos=999, eos=(998,), pad=997)


class Characters:
    """One token per character; a first token in front of texts if asked to."""

    def __init__(self, first: int | None = None, lists: bool = False) -> None:
        self.first = [] if first is None else [first]
        self.lists = lists
        self.seen = 0

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:
        self.seen = max(self.seen, len(text))
        ids = (self.first if add_special_tokens else []) + [ord(c) % 997 for c in text]
        return ids if self.lists else SimpleNamespace(ids=ids)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "heldout.txt"
    path.write_text("".join(chr(97 + n % 26) for n in range(3000)), encoding="utf-8")
    return path


def expected_ids(count: int) -> list[int]:
    return [97 + n % 26 for n in range(count)]


@pytest.mark.parametrize("lists", (False, True))
def test_file_is_read_from_its_beginning_without_gaps(file: Path, lists: bool) -> None:
    text = text_of_file(file, Characters(lists=lists), INFO, 2048)
    assert text.tokens == 2048
    assert [token for row in text.rows for token in row] == expected_ids(2048)
    assert {len(row) for row in text.rows} == {256}
    assert text.label == "the first 2048 tokens of heldout.txt"


@pytest.mark.parametrize(
    ("tokens", "context", "length"),
    ((16_384, 1024, 512), (2048, 1024, 256), (2048, 100, 100), (100, 1024, 64), (2, 1024, 2)),
)
def test_rows_fit_the_context_and_are_several(
    tmp_path: Path, tokens: int, context: int, length: int
) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * 20_000)
    info = ModelInfo("toy", "toy", context=context)
    text = text_of_file(path, Characters(), info, tokens)
    assert len(text.rows[0]) == length
    assert all(2 <= len(row) <= length for row in text.rows)
    assert tokens - 1 <= text.tokens <= tokens


def test_every_row_starts_with_the_token_that_texts_start_with(file: Path) -> None:
    text = text_of_file(file, Characters(first=999), INFO, 512)
    assert all(row[0] == 999 for row in text.rows)
    body = [token for row in text.rows for token in row[1:]]
    assert body == expected_ids(len(body))
    assert text.tokens == 512


def test_another_special_token_is_not_put_in_front(file: Path) -> None:
    text = text_of_file(file, Characters(first=5), INFO, 512)
    assert text.rows[0][0] == ord("a")


def test_fewer_tokens_than_asked_for_are_used_and_said(file: Path) -> None:
    text = text_of_file(file, Characters(), INFO, 5000)
    assert text.tokens == 3000
    assert text.label == (
        "the first 3000 tokens of heldout.txt (all there is; 5000 were asked for)"
    )


def test_the_beginning_of_a_large_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("ä" * 100_000, encoding="utf-8")
    tokenizer = Characters()
    assert text_of_file(path, tokenizer, INFO, 64).tokens == 64
    assert tokenizer.seen < 5000


def written(folder: Path, content: bytes) -> Path:
    path = folder / "text.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    (
        (b"", "the file is empty"),
        (b" \n ", "the file is empty"),
        (b"abc \xff\xfe", "not UTF-8"),
        (b"a", "1 tokens, too few"),
    ),
)
def test_unusable_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(EffcError, match=reason) as error:
        text_of_file(path, Characters(), INFO, 2048)
    assert error.value.code == "E0409"
    assert error.value.where == str(path)
    assert error.value.help


def test_missing_files_folders_and_tokenizers_are_refused(tmp_path: Path) -> None:
    for path, tokenizer, reason in (
        (tmp_path / "none.txt", Characters(), "No such file"),
        (tmp_path, Characters(), "Is a directory"),
        (written(tmp_path, b"text"), None, "no tokenizer"),
    ):
        with pytest.raises(EffcError, match=reason) as error:
            text_of_file(path, tokenizer, INFO, 2048)
        assert error.value.code == "E0409"


def test_random_ids_are_ordinary_tokens_and_always_the_same() -> None:
    text = random_text(ModelInfo("toy", "toy", vocabulary=5, bos=0, eos=(1,), pad=2), 2048)
    assert (len(text.rows), text.tokens) == (32, 2048)
    assert {token for row in text.rows for token in row} == {3, 4}
    assert text == random_text(ModelInfo("toy", "toy", vocabulary=5, bos=0, eos=(1,), pad=2), 2048)
    assert text.label.startswith("random token ids")


def test_random_ids_need_a_vocabulary() -> None:
    with pytest.raises(EffcError, match="vocabulary is not known") as error:
        random_text(ModelInfo("toy", "toy"), 2048)
    assert error.value.code == "E0409"


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(lowered(canonical_decoder()))


def sampled(subject: Subject, tokens: int = 2048) -> EvaluationText:
    info = subject.program.info
    return evaluation_text(subject.engine, info, Characters(), QualitySpec(tokens=tokens))


def test_the_original_writes_its_own_text(subject: Subject) -> None:
    text = sampled(subject)
    assert {len(row) for row in text.rows} == {CONTEXT}
    assert CONTEXT * (len(text.rows) + 1) > 2048 >= text.tokens
    assert all(row[0] == 0 for row in text.rows)
    assert len(set(text.rows)) == len(text.rows)
    assert text == sampled(subject)
    assert text.label.startswith("sampled from the original, 42 x 48 tokens after its first token")


def test_sampled_text_follows_the_law_of_the_model(subject: Subject) -> None:
    """The second token of many rows against the probabilities after the first."""
    text = sampled(subject, 48 * 600)
    law = subject.engine.forward(torch.tensor([[0]]))[0, 0].softmax(-1)
    counts = torch.tensor([row[1] for row in text.rows]).bincount(minlength=len(law))
    expected = law * len(text.rows)
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    # 22 degrees of freedom: mean 22, and 48 is exceeded once in a thousand times.
    assert chi2 < 48


def test_a_model_without_a_first_token_starts_anywhere() -> None:
    subject = Subject(lowered(canonical_decoder(bos=None)))
    text = sampled(subject)
    assert len({row[0] for row in text.rows}) > 5
    assert "after random tokens" in text.label


def test_without_tokenizer_or_engine_ids_are_random(subject: Subject) -> None:
    info = subject.program.info
    for engine, tokenizer in ((subject.engine, None), (None, Characters())):
        assert evaluation_text(engine, info, tokenizer, None) == random_text(info, 2048)


def test_a_file_is_used_where_one_is_named(subject: Subject, file: Path) -> None:
    quality = QualitySpec(data=str(file), tokens=100)
    info = subject.program.info
    text = evaluation_text(subject.engine, info, Characters(), quality)
    assert text == text_of_file(file, Characters(), info, 100)


def test_a_single_token_is_too_few(subject: Subject) -> None:
    with pytest.raises(EffcError, match="too few") as error:
        evaluation_text(subject.engine, INFO, Characters(), QualitySpec(tokens=1))
    assert error.value.code == "E0409"
