"""Models that an artifact is compared with: another artifact, or what it was compiled from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effc.diagnostics import EffcError

if TYPE_CHECKING:
    from effc.evaluate.fired import MethodUse
    from effc.ir.program import Program
    from effc.spec.schema import Policy


def open_other(path: Path, like: Program) -> Program:
    """The program in an artifact, or a model folder compiled without any rule.

    Args:
        path: of either.
        like: gives the device, the threads and the context to compile for.

    Raises:
        EffcError: as for `effc run` and `effc compile`; E0101 where the two cannot be compared.
    """
    from effc.ir.manifest import MANIFEST
    from effc.runtime.loader import load_program

    if (path / MANIFEST).is_file():
        other = load_program(path)
    else:
        from effc.compiler import compile_model

        target = {"device": like.device, "threads": like.threads, "context": like.info.context}
        known = {name: value for name, value in target.items() if value is not None}
        other = compile_model(path, {"version": 1, "target": known}).program
    _require_same_language(like, other, path)
    return other


def policy_of(artifact: Path) -> Policy | None:
    """The policy that an artifact was made under, as it was understood then."""
    from effc.passes import registry
    from effc.runtime.loader import read_document
    from effc.spec.parse import parse_policy

    lock = json.loads(read_document(artifact, "policy.lock") or "{}")
    text = lock.get("policy")
    if text is None:
        return None
    return parse_policy(text, file=f"{artifact}/policy.lock", methods=registry.method_infos())


def methods_of(report: dict[str, Any]) -> list[MethodUse]:
    """The methods that report.json says were applied."""
    from effc.evaluate.fired import MethodUse

    steps = (report.get("plan") or {}).get("steps", [])
    return MethodUse.of_names((step["aspect"], step["method"], step["site"]) for step in steps)


def _require_same_language(program: Program, other: Program, path: Path) -> None:
    """Refuse models whose tokens do not mean the same."""
    facts = {
        "vocabulary": (program.info.vocabulary, other.info.vocabulary),
        "context": (program.info.context, other.info.context),
        "loop": (program.loop, other.loop),
    }
    reasons = [f"{name} {a} and {b}" for name, (a, b) in facts.items() if a != b]
    files = [model.info.files.get("tokenizer.json") for model in (program, other)]
    if all(files) and len({file.read_bytes() for file in files if file}) > 1:
        reasons.append("different tokenizers")
    if reasons:
        raise EffcError(
            "E0101",
            f"the models cannot be compared: they have {'; '.join(reasons)}",
            where=str(path),
            help="name the model that the artifact was compiled from",
        )
