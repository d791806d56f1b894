"""What a rewrite cost, and what happens when it cost too much.

The original is the same model under an empty policy. Both read the same text; where a gate of
`[quality]` breaks, `effc.evaluate.settle` finds the guilty rule and undoes it, or refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from effc.compilation import Compilation, Planned
from effc.cost.machine import measure_cpu
from effc.cost.prediction import predict
from effc.evaluate.fired import MethodUse
from effc.evaluate.gates import refuse_unmeasurable
from effc.evaluate.measure import Quality, measure, measure_outputs
from effc.evaluate.settle import settle
from effc.evaluate.subject import Subject
from effc.evaluate.texts import EvaluationText, evaluation_text
from effc.evaluate.trials import Rules, Sites
from effc.ir.program import Program
from effc.pipeline import ASPECT_PASSES, SERVED
from effc.progress import SILENT, Progress
from effc.rewriting import rewritten
from effc.spec.plan import Plan, make_plan
from effc.spec.schema import Policy, QualitySpec
from effc.tokenizer import open_tokenizer


def gated(
    planned: Planned,
    tokenizer: Any = None,
    inputs: Any = None,
    progress: Progress = SILENT,
) -> Compilation:
    """Compile a plan, measure it against the original and keep its gates.

    Args:
        planned: with a policy that has `[quality]`.
        tokenizer: for `quality.data`; default: the one that came with the model.
        inputs: an example of the inputs, a tuple or by name, for models that do not generate.
        progress: told of each variant that is measured.

    Raises:
        GateError: E0408 with the guilty rule and its worst step.
        PolicyError: E0211 for a bound that means nothing for this model.
    """
    policy = planned.policy
    assert policy.quality is not None, "there is nothing to measure without [quality]"
    original = Subject(_original(planned))
    refuse_unmeasurable(
        policy.quality, generates=original.generates, where=planned.program.info.source
    )
    compare = _comparison(original, policy, tokenizer, inputs, progress)
    variants: dict[int, Compilation] = {}

    def plan_of(rules: Rules, sites: Sites) -> Plan:
        return (
            make_plan(policy, planned.sites, SERVED, disabled=rules, disabled_sites=sites)
            if rules or sites
            else planned.plan
        )

    def build(plan: Plan) -> Program:
        progress.step("rewriting")
        done = rewritten(planned, plan)
        variants[id(done.program)] = done
        return done.program

    def measured(program: Program) -> Quality:
        progress.step("measuring")
        return compare(program, variants[id(program)].plan, policy.quality)

    settled = settle(policy, plan_of, build, measured, progress.line)
    done = variants[id(settled.program)]
    done.quality, done.reverted = settled.quality, settled.reverted
    done.timed_prediction = _timed_prediction(planned, done)
    shares = _shares(planned, done, compare)
    done.verdicts = [replace(v, kl=shares.get(v.pass_name)) for v in done.verdicts]
    return done


def _timed_prediction(planned: Planned, done: Compilation) -> dict[str, Any] | None:
    """What was to be expected of the tokens that were timed, on this machine."""
    timed = (done.quality or {}).get("timed")
    if timed is None:
        return None
    target = replace(planned.policy.target, batch=1)
    machine = measure_cpu() if planned.program.device == "cpu" else None
    return predict(
        planned.program,
        planned.sites,
        done.plan,
        replace(planned.policy, target=target),
        machine,
        context=timed["prompt_tokens"] + timed["new_tokens"] // 2,
        prompt=timed["prompt_tokens"],
    )


def _original(planned: Planned) -> Program:
    """The same model under no rules at all, lowered."""
    policy = replace(planned.policy, quantize=(), kv=(), tokens=())
    return rewritten(replace(planned, policy=policy), Plan()).program


Compare = Callable[[Program, Plan, QualitySpec | None], Quality]


def _comparison(
    original: Subject,
    policy: Policy,
    tokenizer: Any,
    inputs: Any,
    progress: Progress,
) -> Compare:
    """A function that measures one variant against the original."""
    assert policy.quality is not None
    timing = policy.quality.max_time_ratio is not None
    if original.generates:
        progress.step("preparing the evaluation text")
        take: Any = measure
        given: Any = _text(original, policy, tokenizer)
    else:
        take, given = measure_outputs, _named(inputs, original)
    return lambda program, plan, quality: take(
        original,
        program,
        given,
        quality=quality,
        methods=MethodUse.of_steps(plan.steps),
        timing=timing,
    )


def _named(inputs: Any, original: Subject) -> dict[str, Any] | None:
    """Example inputs by name."""
    if inputs is None or isinstance(inputs, Mapping):
        return None if inputs is None else dict(inputs)
    values = inputs if isinstance(inputs, list | tuple) else (inputs,)
    names = [spec.name for spec in original.program.stages["forward"].inputs]
    return dict(zip(names, values, strict=False))


def _text(original: Subject, policy: Policy, tokenizer: Any) -> EvaluationText:
    """The text of `quality.data`, a path relative to the policy's own file."""
    info, quality = original.program.info, policy.quality
    if quality is not None and quality.data is not None and policy.source is not None:
        quality = replace(quality, data=str(Path(policy.source).parent / quality.data))
    return evaluation_text(original.engine, info, tokenizer or open_tokenizer(info), quality)


def _shares(planned: Planned, done: Compilation, compare: Compare) -> dict[str, float]:
    """Pass -> the KL of its steps alone; for a single pass that is the KL of all."""
    if done.quality is None or "kl" not in done.quality:
        return {}
    passes = dict.fromkeys(ASPECT_PASSES[step.aspect] for step in done.plan.steps)
    if len(passes) == 1:
        return {next(iter(passes)): done.quality["kl"]["mean"]}
    shares = {}
    for name in passes:
        steps = tuple(s for s in done.plan.steps if ASPECT_PASSES[s.aspect] == name)
        alone = rewritten(planned, replace(done.plan, steps=steps))
        shares[name] = compare(alone.program, alone.plan, None)["kl"]["mean"]
    return shares
