"""The table of messages: what can be wrong, by chapters."""

from __future__ import annotations

from tests.messages import artifacts, evaluation, models, onnx_files, policies
from tests.messages.case import Case

CHAPTERS: dict[str, tuple[Case, ...]] = {
    "Policies that are no TOML": policies.TOML,
    "Tables, keys and methods": policies.KEYS,
    "Values": policies.VALUES,
    "Contradictions, and what is not there": policies.CONTRADICTIONS,
    "Selectors": policies.SELECTORS,
    "Quantities": policies.QUANTITIES,
    "Policy files": policies.FILES,
    "Rules that match nothing": models.RULES,
    "Models": models.MODELS,
    "ONNX files": onnx_files.FILES,
    "Outputs and targets": models.OUTPUTS,
    "Python": models.PYTHON,
    "Artifacts": artifacts.ARTIFACTS,
    "Prompts": artifacts.PROMPTS,
    "Evaluations and images": evaluation.EVALUATION,
    "Command lines": artifacts.COMMANDS,
    "Environment variables": artifacts.ENVIRONMENT,
}

CASES: dict[str, Case] = {case.name: case for cases in CHAPTERS.values() for case in cases}
