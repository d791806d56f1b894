"""The tasks by name; a task's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from effc.diagnostics import EffcError, did_you_mean
from effc.evaluate.tasks.base import Task

# Name -> "module:Class"; a family's lines stand together.
TASKS: dict[str, str] = {
    "recall.associative": "effc.evaluate.tasks.recall:Associative",
    "recall.copy": "effc.evaluate.tasks.recall:Copy",
    "recall.needle": "effc.evaluate.tasks.recall:Needle",
    "recall.question-first": "effc.evaluate.tasks.recall:QuestionFirst",
    "recall.two-hop": "effc.evaluate.tasks.recall:TwoHop",
    "reason.arithmetic": "effc.evaluate.tasks.reason:Arithmetic",
    "reason.stack": "effc.evaluate.tasks.reason:Stack",
    "clip.caption": "effc.evaluate.tasks.clips:Caption",
    "clip.colour-order": "effc.evaluate.tasks.clips:ColourOrder",
    "clip.count": "effc.evaluate.tasks.clips:Count",
    "clip.direction": "effc.evaluate.tasks.clips:Direction",
    "scene.attribute": "effc.evaluate.tasks.scenes:Attribute",
    "scene.count": "effc.evaluate.tasks.scenes:Count",
    "scene.exists": "effc.evaluate.tasks.scenes:Exists",
    "scene.images": "effc.evaluate.tasks.scenes:Images",
    "scene.relation": "effc.evaluate.tasks.scenes:Relation",
    "scene.row": "effc.evaluate.tasks.scenes:Row",
}


# Tasks on a text instead of items: name -> one line for people.
PERPLEXITY, KL = "perplexity", "kl"
TEXT_TASKS: dict[str, str] = {
    PERPLEXITY: "perplexity of a text (--data)",
    KL: "KL divergence from a reference (--against) per token of a text (--data), in nats",
}


def task_named(name: str) -> Task:
    """The task of that name, with its ordinary settings.

    Args:
        name: a key of `TASKS`.

    Raises:
        EffcError: E0101 when there is no such task.
    """
    if name not in TASKS:
        help = did_you_mean(name, (*TASKS, *TEXT_TASKS))
        raise EffcError("E0101", f"there is no task {name!r}", help=help)
    module, _, class_name = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), class_name)()
    return task
