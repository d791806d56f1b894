"""What a rewrite cost: everything that can be measured about two models, as one dict."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from effc.evaluate import timing as clock
from effc.evaluate.divergence import summarize
from effc.evaluate.fired import MethodUse, fired
from effc.evaluate.gates import check_gates
from effc.evaluate.greedy import agreement, greedy_answers
from effc.evaluate.layers import LayerErrors
from effc.evaluate.outputs import STAGE, Inputs, compare_outputs, random_inputs
from effc.evaluate.reading import compare_reading
from effc.evaluate.subject import Subject
from effc.evaluate.texts import EvaluationText
from effc.ir.passbase import read_bytes
from effc.ir.program import Program
from effc.spec.schema import QualitySpec

Quality = dict[str, Any]
"""What was measured, ready for JSON; parts that were not measured are null or absent."""


def measure(
    original: Program | Subject,
    rewritten: Program | Subject,
    text: EvaluationText,
    *,
    quality: QualitySpec | None = None,
    methods: Sequence[MethodUse] = (),
    timing: bool = False,
    greedy: bool = True,
    rounds: int = clock.ROUNDS,
    kernels: str = "auto",
) -> Quality:
    """Compare two language models on a text.

    Args:
        original, rewritten: lowered programs that generate; a `Subject` is not loaded again.
        text: what both read; the first halves of its rows are the prompts.
        quality: its bounds are checked, see `effc.evaluate.gates`.
        methods: those of the plan, each of which must show that it acted.
        timing: also time both, taking turns.
        greedy: also let both answer; without it there are no cache bytes and no evidence that
            methods acted.
        rounds: of timing.
        kernels: "auto" or "reference", see `effc.runtime.executable.Executable`.

    Returns:
        text, kl, perplexity, top1, greedy, layers, time, bytes, counters, fired, gates, notes and
        seconds.

    Raises:
        GenerationError: E0701 or E0702, the text does not fit the models; E0705, the logits of
            the original are no numbers.
    """
    started = perf_counter()
    first, second = _subject(original, kernels), _subject(rewritten, kernels)
    rows, layers = compare_reading(first, second, text)
    found: Quality = {"text": text.to_dict()} | summarize(rows) | {"greedy": None}
    counters: dict[str, dict[str, Any]] = {"original": {}, "rewritten": {}}
    if greedy:
        answers = [greedy_answers(subject, text) for subject in (first, second)]
        found["greedy"] = agreement(*answers)
        counters = dict(zip(counters, (answer.counters for answer in answers), strict=True))
    found |= _layers(layers)
    found["time"] = None
    if timing:
        prompt, new = _timed_tokens(first, text)
        runs = [clock.generation_run(subject, prompt, new) for subject in (first, second)]
        found["time"] = clock.paired(*runs, rounds=rounds)
        found["timed"] = {"prompt_tokens": len(prompt), "new_tokens": new}
    found |= _circumstances(first, second, counters)
    if greedy:
        found["fired"] = fired(second.program, methods, found["counters"]["rewritten"])
    return _finished(found, quality, started)


def measure_outputs(
    original: Program | Subject,
    rewritten: Program | Subject,
    inputs: Inputs | None = None,
    *,
    quality: QualitySpec | None = None,
    methods: Sequence[MethodUse] = (),
    timing: bool = False,
    rounds: int = clock.ROUNDS,
    kernels: str = "auto",
) -> Quality:
    """Compare two models that are called, such as encoders, on the same inputs.

    Args:
        inputs: by name; None for random ones.
        original, rewritten, quality, methods, timing, rounds, kernels: see `measure`.

    Returns:
        inputs, outputs, layers, time, bytes, counters, fired, gates, notes and seconds.

    Raises:
        EffcError: E0409, the original cannot take the inputs.
    """
    started = perf_counter()
    first, second = _subject(original, kernels), _subject(rewritten, kernels)
    values = random_inputs(first.program) if inputs is None else inputs
    outputs, layers = compare_outputs(first, second, values)
    label = "random, the same on every run" if inputs is None else "given"
    found: Quality = {"inputs": {"label": label}, "outputs": outputs} | _layers(layers)
    found["time"] = None
    if timing:
        runs = [clock.call_run(subject, STAGE, values) for subject in (first, second)]
        found["time"] = clock.paired(*runs, rounds=rounds)
    found |= _circumstances(first, second, {"original": {}, "rewritten": {}})
    found["fired"] = fired(second.program, methods, found["counters"]["rewritten"])
    return _finished(found, quality, started)


def _subject(model: Program | Subject, kernels: str) -> Subject:
    return model if isinstance(model, Subject) else Subject(model, kernels=kernels)


def _timed_tokens(subject: Subject, text: EvaluationText) -> tuple[Sequence[int], int]:
    """The longest row as a prompt, as far as the context leaves room for answers."""
    row, context = max(text.rows, key=len), subject.program.info.context
    room = len(row) if context is None else max(1, context - clock.NEW_TOKENS)
    prompt = row[:room]
    left = clock.NEW_TOKENS if context is None else context - len(prompt)
    return prompt, min(clock.NEW_TOKENS, left)


def _layers(errors: LayerErrors) -> Quality:
    found = errors.result()
    missing = "the error of layers is not known: the models do not have the same ones"
    return {"layers": found, "notes": [] if found else [missing]}


def _circumstances(
    original: Subject, rewritten: Subject, counters: dict[str, dict[str, Any]]
) -> Quality:
    """Bytes and counters of both."""
    subjects = {"original": original, "rewritten": rewritten}
    return {
        "bytes": {
            name: {
                "weights": read_bytes(subject.program),
                "cache": counters[name].get("bytes_held"),
            }
            for name, subject in subjects.items()
        },
        "counters": {
            name: counters[name] | {"calls": dict(subject.calls)}
            for name, subject in subjects.items()
        },
    }


def _finished(found: Quality, quality: QualitySpec | None, started: float) -> Quality:
    found["gates"] = check_gates(quality, found)
    found["seconds"] = perf_counter() - started
    return found
