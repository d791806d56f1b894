"""The compiler: source and policy in, lowered program out.

    source --canonical_program--> sites --policy--> plan --prediction--> Planned
    Planned --rewrite, measure, revert--> Compilation

Planning reads no weight. Compiling rewrites copies of the canonical program, so that a gate can
try the plan without a rule that turned out to be too expensive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effc.canonical import canonical_program
from effc.compilation import Compilation, Planned
from effc.cost.prediction import check_memory, predict
from effc.ir.passbase import read_bytes
from effc.ir.sites import find_sites
from effc.lock import build_lock
from effc.passes import registry
from effc.pipeline import SERVED
from effc.progress import SILENT, Progress
from effc.report.build import build_report
from effc.rewriting import rewritten
from effc.spec.legality import check_plan
from effc.spec.parse import load_policy
from effc.spec.plan import make_plan

NOTHING_MEASURED = "nothing was measured: the policy has no [quality]"


def plan_model(
    source: Any,
    spec: Any = None,
    *,
    presets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    progress: Progress = SILENT,
) -> Planned:
    """What a policy will do to a model, and what that should save; reads no weight.

    Args:
        source: path of a Hugging Face folder, or an `nn.Module`.
        spec: path of a policy, dict, `Policy`, or None for an empty policy.
        presets: names of presets that come before the policy.
        overrides: "key.path=value" texts that come after it.
        example_inputs: for modules that are no transformers language model: a tuple or a dict.
        dynamic_shapes: overrides the default reading of the example's dimensions.
        progress: told of each long step.

    Raises:
        EffcError: every refusal; see `effc.diagnostics.CATALOGUE`.
    """
    policy = load_policy(spec, registry.method_infos(), presets=presets, overrides=overrides)
    progress.step("capturing the model")
    program, journal, verdicts = canonical_program(
        source,
        policy,
        example_inputs=example_inputs,
        dynamic_shapes=dynamic_shapes,
        progress=progress,
    )
    progress.step("planning")
    sites = find_sites(program)
    plan = make_plan(policy, sites, SERVED)
    check_plan(plan, policy.target)
    prediction = predict(program, sites, plan, policy)
    check_memory(prediction, policy)
    return Planned(
        program=program,
        policy=policy,
        sites=sites,
        plan=plan,
        prediction=prediction,
        journal=journal,
        verdicts=verdicts,
        notes=[*program.notes, *plan.notes],
        bytes_before=read_bytes(program),
    )


def compile_model(
    source: Any,
    spec: Any = None,
    *,
    presets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    tokenizer: Any = None,
    progress: Progress = SILENT,
) -> Compilation:
    """Compile a model under a policy.

    Args:
        source, spec, presets, overrides, example_inputs, dynamic_shapes: see `plan_model`.
        tokenizer: turns `quality.data` into tokens; default: the one beside the model.
        progress: told of each long step.

    Raises:
        EffcError: every refusal; a broken gate is a `GateError`.
    """
    planned = plan_model(
        source,
        spec,
        presets=presets,
        overrides=overrides,
        example_inputs=example_inputs,
        dynamic_shapes=dynamic_shapes,
        progress=progress,
    )
    if planned.policy.quality is None:
        done = rewritten(planned, planned.plan, progress)
        done.notes.append(NOTHING_MEASURED)
    else:
        from effc.gating import gated

        done = gated(planned, tokenizer, example_inputs, progress)
    done.report = build_report(done)
    done.lock = build_lock(done, source)
    return done
