"""`torch.compile(model, backend="effc", options={"spec": ...})`: the stateless methods.

Dynamo hands over one graph per stretch of Python without a break. Each is compiled like a module
given to `effc.optimize`: weights under their names in the model, the same passes, the same plan.
What needs state between calls (a cache, a drafter, streaming) is refused.

    - Inference only: with gradients enabled the call is refused.
    - Weights are read when a graph is compiled. Changing them in place afterwards has no effect.
    - Every graph is compiled under the whole policy, so a rule must match in every graph. After a
      graph break, or for a graph without a place for it, say `optional = true`; with
      `fullgraph=True` there is one graph.
    - A refusal reaches the caller as the `EffcError` itself, when the compiled function is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch._guards import tracing

from effc.diagnostics import (
    EffcError,
    ModelError,
    NoMatchError,
    PolicyError,
    TargetError,
    did_you_mean,
)
from effc.dynamo_graph import BoundGraph, Callee, Signature

if TYPE_CHECKING:
    from effc.spec.schema import Policy

OPTIONS = ("spec", "presets", "overrides")


def backend(
    graph: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callee:
    """Compile one graph of Dynamo; registered as the backend "effc".

    Args:
        graph: torch functions over placeholders for weights, inputs and symbolic sizes.
        example_inputs: a value for each placeholder.
        options: "spec", "presets" and "overrides", as `effc.compiler.compile_model` takes them.
        mode: one of torch.compile's own; there is none for effc.

    Returns:
        A function of the placeholders' values. It raises the `EffcError` when effc refuses.
    """
    try:
        # The capture inside is none of Dynamo's business: its guards are not Dynamo's.
        with tracing(None):
            return _compile(graph, example_inputs, dict(options or {}), mode)
    except EffcError as error:
        return _refusal(error)


def _refusal(error: EffcError) -> Callee:
    """Raised from the backend itself, an error would reach the caller as Dynamo's, without its
    cause, or, with `suppress_errors`, not at all."""

    def refuse(*_: Any) -> Sequence[Any]:
        raise error

    return refuse


def _compile(
    graph: fx.GraphModule, example_inputs: Sequence[Any], options: dict[str, Any], mode: str | None
) -> Callee:
    from effc.compiler import compile_model
    from effc.runtime.executable import Executable
    from effc.settings import settings

    policy = _policy(options, mode)
    values = [_real(value) for value in example_inputs]
    _check_inference(values)
    _check_device(values, policy)
    signature = Signature.of(graph, values)
    example = {name: values[at] for name, at in signature.inputs.items()}
    try:
        done = compile_model(
            BoundGraph(graph, signature, values),
            policy,
            example_inputs=example,
            dynamic_shapes=signature.dynamic_shapes(graph),
        )
    except NoMatchError as error:
        raise NoMatchError(
            error.code,
            f"{error.message} (in one graph of torch.compile)",
            where=error.where,
            help="each graph is compiled by itself: compile with fullgraph=True to have one only, "
            "or set optional = true on rules that are meant for some of them",
        ) from error
    run = Executable(done.program, device=done.program.device, kernels=settings().kernels)
    return signature.callee(graph, run)


def _policy(options: dict[str, Any], mode: str | None) -> Policy:
    """The policy of the options, refused where it needs what a graph does not have."""
    from effc.passes.registry import method_infos
    from effc.spec.parse import load_policy

    if mode is not None:
        raise PolicyError("E0211", f"the backend 'effc' has no mode {mode!r}", help="leave it out")
    for key in options:
        if key not in OPTIONS:
            raise PolicyError(
                "E0202",
                f"unknown option {key!r} of the backend 'effc'",
                where="torch.compile",
                help=did_you_mean(key, OPTIONS),
            )
    spec = options.pop("spec", None)
    policy = load_policy(spec, method_infos(), **options)
    for table in ("kv", "tokens", "draft", "stream", "quality"):
        if getattr(policy, table, None):
            why = "measured here" if table == "quality" else "kept between the calls of a graph"
            what = "nothing is" if table == "quality" else "no state is"
            raise PolicyError(
                "E0211",
                f"[{table}] does not go with torch.compile: {what} {why}",
                where="torch.compile",
                help="use effc.optimize(model, spec) for it",
            )
    return policy


def _real(value: Any) -> Any:
    """Values of weights; Dynamo may pass inputs as fake tensors, of which only shapes count."""
    if isinstance(value, torch._subclasses.FakeTensor):
        return torch.zeros([int(s) for s in value.shape], dtype=value.dtype, device=value.device)
    return value


def _check_inference(values: Sequence[Any]) -> None:
    trained = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    if torch.is_grad_enabled() and trained:
        raise ModelError(
            "E0306",
            f"the backend 'effc' is for inference only: gradients are enabled and {len(trained)} "
            "parameters or inputs ask for them",
            where="torch.compile",
            help="call the model under torch.no_grad() or torch.inference_mode()",
        )


def _check_device(values: Sequence[Any], policy: Policy) -> None:
    wanted = policy.target.device.partition(":")[0]
    found = {v.device.type for v in values if isinstance(v, Tensor)} - {wanted}
    if found:
        raise TargetError(
            "E0502",
            f"the model is on {', '.join(sorted(found))}, the policy's target is {wanted}",
            where="torch.compile",
            help=f'set target.device = "{min(found)}", or move the model',
        )
