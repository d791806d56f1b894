"""Gates: the bounds of `[quality]` beside what was measured.

A gate compares the measured mean; its standard error stands beside it. What is no number holds no
gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effc.diagnostics import PolicyError
from effc.spec.schema import QualitySpec

Found = Mapping[str, Any]
Gate = dict[str, Any]

UPPER, LOWER = "at most", "at least"

# Gate -> how the bound is meant, and where its value and standard error stand in a quality report.
_GATES: dict[str, tuple[str, tuple[str, str], str]] = {
    "max_kl": (UPPER, ("kl", "mean"), "stderr"),
    "max_perplexity_ratio": (UPPER, ("perplexity", "ratio"), "ratio_stderr"),
    "min_top1": (LOWER, ("top1", "mean"), "stderr"),
    "max_time_ratio": (UPPER, ("time", "ratio"), "spread"),
}
_OF_LAWS = ("max_kl", "max_perplexity_ratio", "min_top1")


def check_gates(quality: QualitySpec | None, measured: Found) -> list[Gate]:
    """The entry "gates" of a quality report: one per bound of the policy.

    Args:
        quality: the bounds; None for none.
        measured: a quality report; "time" must be there when the time is bounded.

    Returns:
        Per gate its name, bound, measured value and whether it held. Beside it the standard error
        ("stderr"), or for times the quantiles 10 % and 90 % ("spread").

    Raises:
        PolicyError: E0211, a bound on something that was not measured.
    """
    bounds = {} if quality is None else quality.bounds()
    return [_gate(name, bound, measured) for name, bound in bounds.items()]


def refuse_unmeasurable(quality: QualitySpec | None, *, generates: bool, where: str) -> None:
    """Refuse bounds that mean nothing for a model, before anything is compiled.

    Args:
        quality: the bounds.
        generates: whether the model is a language model with next-token laws to compare.
        where: the model, for the message.

    Raises:
        PolicyError: E0211, naming the bounds.
    """
    bounds = {} if quality is None else quality.bounds()
    wrong = [name for name in bounds if name in _OF_LAWS]
    if wrong and not generates:
        raise PolicyError(
            "E0211",
            f"{', '.join(wrong)} cannot be measured: the model does not generate, so it has no "
            "next-token probabilities",
            where=where,
            help="remove these bounds; outputs are compared by relative error and cosine instead",
        )


def excess(gates: Sequence[Gate]) -> float:
    """How far the broken gates lie outside their bounds, in parts of the bound; 0 if all hold."""
    return sum(_excess(gate) for gate in gates if not gate["held"])


def relief(before: Gate, after: Gate) -> float:
    """How much better the value of one gate became, in parts of its bound."""
    if before["value"] is None and after["value"] is None:
        return 0.0
    return (badness(before) - badness(after)) / _scale(before)


def badness(gate: Gate) -> float:
    """The value of a gate, turned so that more is worse; infinite for what is no number."""
    if gate["value"] is None:
        return float("inf")
    return gate["value"] if _GATES[gate["name"]][0] == UPPER else -gate["value"]


def describe(gate: Gate) -> str:
    """One gate in words: `max_kl: 0.31 ± 0.02, bound: at most 0.05, broken`."""
    value = "not a number" if gate["value"] is None else f"{gate['value']:.4g}"
    if gate.get("stderr") is not None:
        value += f" ± {gate['stderr']:.2g}"
    if gate.get("spread"):
        low, high = gate["spread"]
        value += f" ({low:.3g} to {high:.3g})"
    verdict = "held" if gate["held"] else "broken"
    return f"{gate['name']}: {value}, bound: {_GATES[gate['name']][0]} {gate['bound']:g}, {verdict}"


def _gate(name: str, bound: float, measured: Found) -> Gate:
    kind, (part, key), error = _GATES[name]
    found = measured.get(part)
    if part == "time" and found is not None:
        # Decoding decides for language models, the call for all others.
        found = found.get("decode") or found.get("call")
    if found is None:
        raise PolicyError(
            "E0211",
            f"{name} is bounded and was not measured",
            where="[quality]",
            help="measure it, or remove the bound",
        )
    value = found[key]
    held = value is not None and (value <= bound if kind == UPPER else value >= bound)
    doubt = "spread" if part == "time" else "stderr"
    return {"name": name, "bound": bound, "value": value, "held": held, doubt: found[error]}


def _excess(gate: Gate) -> float:
    if gate["value"] is None:
        return float("inf")
    return abs(gate["value"] - gate["bound"]) / _scale(gate)


def _scale(gate: Gate) -> float:
    return abs(gate["bound"]) or 1.0
