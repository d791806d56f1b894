"""`effc evaluate` from end to end: originals, artifacts, ONNX files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from effc.cli import main
from effc.evaluate.scoring import Score
from effc.evaluate.tasks.registry import TASKS, TEXT_TASKS
from tests.evaluate import scored

ITEMS = 12
NUMBER: dict[str, Any] = {"type": "number"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
TEXT: dict[str, Any] = {"type": "string"}


def exactly(**properties: Any) -> dict[str, Any]:
    """The schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def pair_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 2, "maxItems": 2}


SCORE = {"mean": SHARE, "stderr": or_null(NUMBER), "n": COUNT}
FACETS = {"additionalProperties": {"additionalProperties": exactly(**SCORE)}}
GRID = exactly(
    lengths={"items": TEXT},
    places={"items": TEXT},
    cells={"items": {"items": or_null(exactly(**SCORE))}},
)
DIFFERENCE = exactly(mean=NUMBER, stderr=or_null(NUMBER), n=COUNT, interval=pair_of(NUMBER))
AGAINST = exactly(
    **SCORE,
    interval=pair_of(SHARE),
    difference=DIFFERENCE,
    only_here=COUNT,
    only_there=COUNT,
    p=SHARE,
    same_answers=COUNT,
)
WRONG = {"items": exactly(index=COUNT, expected=TEXT, said=TEXT), "maxItems": 5}
ON_ITEMS = exactly(
    name=TEXT,
    kind={"const": "items"},
    **SCORE,
    interval=pair_of(SHARE),
    chance=SHARE,
    shortcut=exactly(**SCORE),
    facets=FACETS,
    grid=or_null(GRID),
    wrong=WRONG,
    items_sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
    seconds=NUMBER,
    against=or_null(AGAINST),
)
MODEL = {"model": TEXT, "kind": {"enum": ["artifact", "original", "onnx"]}, "dtype": TEXT}
SCHEMA = exactly(
    **MODEL,
    against=or_null(exactly(**MODEL)),
    seed=COUNT,
    ablation=or_null(TEXT),
    tasks={"items": {"if": {"properties": {"kind": {"const": "items"}}}, "then": ON_ITEMS}},
    notes={"items": TEXT},
)


@dataclass(frozen=True)
class Models:
    """A checkpoint, its artifact, and whether the model answers each item correctly."""

    folder: Path
    out: Path
    right: list[bool]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    import effc

    root = tmp_path_factory.mktemp("evaluate")
    model = scored.save_text_model(root / "model")
    effc.optimize(root / "model").save(root / "out")
    scored.ITEMS[:], right = scored.known_items(model, ITEMS)
    TASKS["test.known"] = "tests.evaluate.scored:Known"
    yield Models(root / "model", root / "out", right)
    del TASKS["test.known"]
    scored.ITEMS.clear()


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"w{(n * n + n // 5) % 17}" for n in range(600)), encoding="utf-8")
    return path


def found(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What the command says with --json; nothing else may be on either stream."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    said = capsys.readouterr()
    assert not said.err
    data: dict[str, Any] = json.loads(said.out)
    jsonschema.validate(data, SCHEMA)
    return data


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    """Code and message of the error that the command ends with."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    return error["code"], f"{error['message']}\n{error['help']}"


def test_original_and_artifact_score_what_is_known(
    models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = Score.of(models.right)
    for path, kind in ((models.folder, "original"), (models.out, "artifact")):
        data = found(capsys, path, "--task", "test.known")
        (entry,) = data["tasks"]
        assert (data["kind"], entry["n"]) == (kind, ITEMS)
        assert entry["mean"] == pytest.approx(expected.mean)
        assert entry["stderr"] == pytest.approx(expected.stderr)
        assert [wrong["index"] for wrong in entry["wrong"]] == [0, 3, 6, 9]
        assert entry["wrong"][0]["expected"] == entry["wrong"][0]["said"] + " w1"


def test_both_answer_the_same(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    data = found(capsys, models.out, "--task", "test.known", "--against", models.folder)
    pair = data["tasks"][0]["against"]
    assert pair["same_answers"] == ITEMS
    assert (pair["only_here"], pair["only_there"], pair["p"]) == (0, 0, 1)
    assert pair["difference"]["mean"] == 0


@pytest.mark.slow
def test_an_onnx_file_is_compiled_first(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import effc

    effc.load(models.out).export(tmp_path / "model.onnx")
    for name in ("tokenizer.json", "config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((models.folder / name).read_bytes())
    capsys.readouterr()
    data = found(capsys, tmp_path / "model.onnx", "--task", "test.known")
    assert data["kind"] == "onnx"
    assert "was compiled under an empty policy first" in data["notes"][0]
    assert data["tasks"][0]["mean"] == pytest.approx(Score.of(models.right).mean)


def test_ablation_hurts_the_original_alone(
    models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (models.folder, "--task", "test.known", "--against", models.folder)
    half = found(capsys, *flags, "--ablate", "random-kv=.5")
    assert half["ablation"] == "random-kv=0.5"
    assert half["tasks"][0]["against"]["mean"] == pytest.approx(Score.of(models.right).mean)
    assert half["tasks"][0]["mean"] < half["tasks"][0]["against"]["mean"]
    assert half["tasks"][0] | {"seconds": 0} == found(capsys, *flags, "--ablate", "random-kv=.5")[
        "tasks"
    ][0] | {"seconds": 0}
    none = found(capsys, *flags, "--ablate", "random-kv=0")
    assert none["tasks"][0]["against"]["same_answers"] == ITEMS


def test_texts_are_measured(
    models: Models, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--task", "perplexity,kl", "--data", text_file, "--limit", "300")
    data = found(capsys, models.out, *asked, "--against", models.folder)
    perplexity, kl = data["tasks"]
    assert perplexity["mean"] == pytest.approx(perplexity["against"]["mean"], rel=1e-5)
    assert perplexity["n"] + perplexity["rows"] == kl["n"] == 300
    assert 0 <= kl["mean"] < 1e-9 and kl["top1"]["mean"] == 1
    alone = found(capsys, models.out, *asked[:1], "perplexity", *asked[2:])
    assert alone["tasks"][0]["mean"] == perplexity["mean"]
    assert alone["tasks"][0]["against"] is None


def test_people_get_lines_and_a_page(
    models: Models, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    command = ["evaluate", str(models.folder), "--task", "test.known,perplexity", "--data"]
    command += [str(text_file), "--against", str(models.out), "--html", str(page)]
    assert main(command) == 0
    said = capsys.readouterr()
    score = Score.of(models.right)
    assert f"test.known: {score.mean:.3f} ± {score.stderr:.3f} of {ITEMS} items" in said.out
    assert "McNemar p 1; same answer to 12 of 12" in said.out
    assert "evaluating perplexity" in said.err
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>") and "by length and place" in html


def test_the_list_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*TASKS, *TEXT_TASKS]
    assert main(["evaluate", "--list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["tasks"]) == {*TASKS, *TEXT_TASKS}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    (
        (("MODEL",), "E0101", "no task to evaluate"),
        (("--task", "perplexity"), "E0101", "no model to evaluate"),
        (("MODEL", "--task", "test.knwon"), "E0101", "did you mean 'test.known'?"),
        (("MODEL", "--task", "perplexty"), "E0101", "did you mean 'perplexity'?"),
        (("MODEL", "--task", "perplexity"), "E0101", "--data FILE"),
        (("MODEL", "--task", "kl", "--data", "x.txt"), "E0101", "--against"),
        (("OUT", "--task", "test.known", "--ablate", "random-kv=.5"), "E0101", "the model folder"),
        (("MODEL", "--task", "test.known", "--ablate", "kv"), "E0101", "knows no 'kv'"),
        (("MODEL", "--task", "recall.associative"), "E0414", "no token for"),
        (("MODEL", "--task", "scene.count"), "E0414", "no token for"),
        (("NOWHERE", "--task", "test.known"), "E0301", "does not exist"),
    ),
)
def test_refusals_name_the_reason(
    models: Models,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: str,
    words: str,
) -> None:
    paths = {"MODEL": models.folder, "OUT": models.out, "NOWHERE": tmp_path / "nowhere"}
    given = [paths.get(argument, argument) for argument in arguments]
    found_code, text = refusal(capsys, *given)
    assert found_code == code
    assert words in text


def test_ablation_and_texts_exclude_one_another(
    models: Models, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--task", "perplexity", "--data", text_file, "--ablate", "random-kv=.5")
    assert refusal(capsys, models.folder, *flags)[0] == "E0101"


def test_a_model_without_a_tokenizer_is_refused(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (tmp_path / name).write_bytes((models.folder / name).read_bytes())
    code, text = refusal(capsys, tmp_path, "--task", "test.known")
    assert code == "E0414" and "has no tokenizer" in text


def test_laws_over_other_tokens_are_not_compared(
    models: Models, tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored.save_text_model(tmp_path / "wider", vocab_size=scored.VOCABULARY + 3)
    flags = ("--task", "kl", "--data", text_file, "--against", tmp_path / "wider")
    code, text = refusal(capsys, models.folder, *flags)
    assert code == "E0101" and "vocabularies of 21 and 24 tokens" in text


def test_a_page_that_cannot_be_written_is_refused(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--task", "test.known", "--limit", "1", "--html", tmp_path / "no" / "page.html")
    assert refusal(capsys, models.folder, *flags)[0] == "E0103"
