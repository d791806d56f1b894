"""`effc evaluate`: scores on tasks whose right answers are known, of any model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effc.cli.evaluated import Evaluated, open_model, require_same_tokens
from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.cli.progress import shown_progress
from effc.cli.scores import score_lines
from effc.cli.verdicts import VerdictTable
from effc.diagnostics import ArtifactError, EffcError
from effc.evaluate.tasks.base import EVALUATION_SEED
from effc.evaluate.tasks.registry import KL, TASKS, TEXT_TASKS, task_named
from effc.progress import Progress

if TYPE_CHECKING:
    from effc.evaluate.ablation import Ablation
    from effc.evaluate.texts import EvaluationText

Model = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL_OR_OUT", help="An artifact, a model folder (the original), or an .onnx file."
    ),
]
TaskFlag = Annotated[
    str | None, typer.Option("--task", metavar="NAME[,NAME...]", help="What to score it on.")
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", help="Items per task, or tokens of a text; default 200 and 2048.", min=1
    ),
]
Against = Annotated[
    Path | None,
    typer.Option("--against", metavar="MODEL_OR_OUT", help="Another model, on the same items."),
]
Data = Annotated[Path | None, typer.Option("--data", help="The text file of perplexity and kl.")]
Ablate = Annotated[
    str | None,
    typer.Option(
        "--ablate",
        metavar="KIND=SHARE",
        help="Take away a random share: random-kv=.5 or random-image=.5; of originals only.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of the items, and of --ablate.", min=0)]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with the scores.")
]
List = Annotated[bool, typer.Option("--list", help="List the tasks.")]


def evaluate(
    model: Model = None,
    task: TaskFlag = None,
    limit: Limit = None,
    against: Against = None,
    data: Data = None,
    ablate: Ablate = None,
    seed: Seed = EVALUATION_SEED,
    html: Html = None,
    list: List = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Score a model on tasks whose right answers are known."""
    if list:
        _list_tasks(json)
        return
    asked = _Asked.of(model, task, limit, against, data, seed)
    ablation = _ablation(ablate, seed)
    with shown_progress(VerdictTable(), quiet=json) as progress:
        found = _evaluated(asked, ablation, progress)
    if html is not None:
        _write_page(found, html)
    if json:
        print_json(found)
    else:
        print("\n".join(score_lines(found)))


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for, checked as far as that is possible without a model."""

    model: Path
    tasks: tuple[str, ...]
    limit: int | None
    against: Path | None
    data: Path | None
    seed: int

    @staticmethod
    def of(
        model: Path | None,
        tasks: str | None,
        limit: int | None,
        against: Path | None,
        data: Path | None,
        seed: int,
    ) -> _Asked:
        names = tuple(dict.fromkeys(name.strip() for name in (tasks or "").split(",")))
        if model is None or names == ("",):
            missing = "model" if model is None else "task"
            raise EffcError(
                "E0101",
                f"there is no {missing} to evaluate",
                help="effc evaluate MODEL_OR_OUT --task NAME; `effc evaluate --list` lists tasks",
            )
        texts = [name for name in names if name in TEXT_TASKS]
        for name in names:
            if name not in texts:
                task_named(name)
        if texts and data is None:
            raise EffcError(
                "E0101", f"{texts[0]} is measured on a text", help="name it: --data FILE"
            )
        if KL in texts and against is None:
            help = "name it: --against MODEL_OR_OUT"
            raise EffcError("E0101", "kl is measured against a reference", help=help)
        return _Asked(model, names, limit, against, data, seed)


def _ablation(text: str | None, seed: int) -> Ablation | None:
    from effc.evaluate.ablation import Ablation

    return None if text is None else Ablation.parse(text, seed)


def _evaluated(asked: _Asked, ablation: Ablation | None, progress: Progress) -> dict[str, Any]:
    """The whole answer of the command, as data."""
    model = open_model(asked.model, ablation, progress)
    other = None if asked.against is None else open_model(asked.against, None, progress)
    if ablation is not None and set(asked.tasks) & set(TEXT_TASKS):
        raise EffcError(
            "E0101",
            "--ablate takes away parts of the context of items, and a text has none",
            help=f"leave out {', '.join(TEXT_TASKS)}",
        )
    entries = []
    for name in asked.tasks:
        progress.step("evaluating", name)
        measured = _on_text if name in TEXT_TASKS else _on_items
        entries.append(measured(name, asked, model, other, progress))
    return {
        **model.to_dict(),
        "against": other and other.to_dict(),
        "seed": asked.seed,
        "ablation": None if ablation is None else str(ablation),
        "tasks": entries,
        "notes": [*model.notes, *(other.notes if other else ())],
    }


def _on_items(
    name: str, asked: _Asked, model: Evaluated, other: Evaluated | None, progress: Progress
) -> dict[str, Any]:
    from effc.evaluate.answering import ModelAnswers
    from effc.evaluate.scorecard import items_entry
    from effc.evaluate.scoring import ITEMS, run_task

    task, count = task_named(name), asked.limit or ITEMS
    answerers = [ModelAnswers(m.model, m.tokenizer) for m in (model, other) if m is not None]
    return items_entry(*(run_task(task, each, count, asked.seed, progress) for each in answerers))


def _on_text(
    name: str, asked: _Asked, model: Evaluated, other: Evaluated | None, progress: Progress
) -> dict[str, Any]:
    from effc.evaluate import likelihood
    from effc.evaluate.scorecard import kl_entry, perplexity_entry

    text = _text(asked, model)
    pair, started = None, perf_counter()
    if other is not None:
        require_same_tokens(model, other)
        pair = likelihood.divergence(other.model, model.model, text, progress)
    if name == KL and pair is not None:
        return kl_entry(text.to_dict(), pair, perf_counter() - started)
    found = likelihood.perplexity(model.model, text, progress)
    return perplexity_entry(text.to_dict(), found, pair, perf_counter() - started)


def _text(asked: _Asked, model: Evaluated) -> EvaluationText:
    from effc.evaluate.texts import text_of_file
    from effc.spec.schema import QualitySpec

    tokens = asked.limit or QualitySpec().tokens
    if asked.data is None:
        raise AssertionError("tasks on a text are refused without one")
    return text_of_file(asked.data, model.tokenizer, model.model.info, tokens)


def _write_page(found: dict[str, Any], path: Path) -> None:
    from effc.report.scores import render_scores

    try:
        path.write_text(render_scores(found), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(
            "E0103", f"the page cannot be written: {error.strerror}", where=str(path)
        ) from error


def _list_tasks(as_json: bool) -> None:
    tasks = {name: task_named(name) for name in TASKS}
    if as_json:
        known = {name: {"summary": t.summary, "chance": t.chance} for name, t in tasks.items()}
        texts = {name: {"summary": line, "chance": None} for name, line in TEXT_TASKS.items()}
        print_json({"tasks": known | texts})
        return
    rows = [[name, f"{task.chance:.2g}", task.summary] for name, task in tasks.items()]
    rows += [[name, "-", line] for name, line in TEXT_TASKS.items()]
    print_table(("task", "chance", "what it asks"), rows)
