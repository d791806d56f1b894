"""Errors that name the thing, the place, the reason and the remedy.

Every refusal of effc is an `EffcError` with a code from `CATALOGUE`. The text reads like a good
compiler's:

    policy.toml:14:9: error[E0203]: unknown option 'bit' for method "rtn"
       14 | bit = 4
          | ^^^
    help: did you mean 'bits'?

Standard library only: `effc check` must start without torch.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Process exit codes, one meaning each."""

    DONE = 0
    INTERNAL = 1
    INPUT = 2
    GATE = 3
    NO_MATCH = 4
    TARGET = 5


CATALOGUE: dict[str, str] = {
    "E0101": "wrong command line",
    "E0102": "the output already exists",
    "E0103": "the output cannot be written",
    "E0104": "an environment variable has a wrong value",
    "E0105": "the lock does not fit",
    "E0201": "the policy is not valid TOML",
    "E0202": "unknown key in the policy",
    "E0203": "unknown option for a method",
    "E0204": "unknown method",
    "E0205": "wrong type or value in the policy",
    "E0206": "the selector cannot be read",
    "E0207": "the quantity cannot be read",
    "E0208": "a required key is missing",
    "E0209": "unsupported policy version",
    "E0210": "the policy file cannot be read",
    "E0211": "contradictory choices in the policy",
    "E0212": "a part of the policy language that is not built yet",
    "E0301": "the model folder or file cannot be read",
    "E0302": "the model's architecture is not supported",
    "E0303": "the model asks for code from its own folder",
    "E0304": "weights and configuration disagree",
    "E0305": "the weights file is damaged",
    "E0306": "the model cannot be captured as a graph",
    "E0307": "an operator is not supported",
    "E0308": "an attention mask is not supported",
    "E0309": "the tokenizer cannot be read",
    "E0310": "the ONNX file is damaged",
    "E0311": "external data of an ONNX file cannot be used",
    "E0401": "a rule matched nothing",
    "E0402": "passes cannot be ordered",
    "E0403": "passes exclude one another",
    "E0404": "a pass broke its contract",
    "E0405": "a cache cannot be inserted",
    "E0406": "the program is not legal",
    "E0407": "a weight cannot be quantized",
    "E0408": "a quality gate failed",
    "E0409": "the evaluation text cannot be used",
    "E0411": "the model does not fit target.memory",
    "E0412": "the text of a program cannot be read",
    "E0413": "a method cannot be loaded",
    "E0414": "the task does not fit the model",
    "E0501": "no kernel fits the target",
    "E0502": "the target is not available",
    "E0503": "an operator was called with wrong arguments",
    "E0601": "the artifact cannot be read",
    "E0602": "the artifact was made by a newer version",
    "E0603": "the artifact is damaged",
    "E0604": "the artifact names an operator outside the allow-list",
    "E0605": "another compilation writes to the same output",
    "E0701": "the prompt does not fit the context",
    "E0702": "a token id lies outside the vocabulary",
    "E0703": "wrong generation argument",
    "E0704": "the program cannot generate",
    "E0705": "the logits are not numbers",
    "E0801": "the export is not possible",
    "E0901": "internal error",
}


@dataclass(frozen=True)
class Span:
    """A stretch of one line of a text file; lines and columns count from 1."""

    file: str
    line: int
    column: int
    length: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """The source line with carets under the span."""
        gutter = f"{self.line:>5} | "
        carets = " " * (self.column - 1) + "^" * max(1, self.length)
        return f"{gutter}{self.text}\n{' ' * (len(gutter) - 2)}| {carets}"


_LONGEST_LINE = 200
"""Generated JSON may be one line of megabytes; what is longer than this is not printed."""


def json_place(error: Exception, file: str) -> Span | str:
    """Where a JSON text stops being JSON; the file alone where that is not known."""
    if not isinstance(error, json.JSONDecodeError):
        return file
    line = error.doc.split("\n")[error.lineno - 1]
    return Span(file, error.lineno, error.colno, 1, line if len(line) <= _LONGEST_LINE else "")


class EffcError(Exception):
    """A refusal that the user can act on.

    Args:
        code: a key of `CATALOGUE`.
        message: what was wrong and why, naming the found and the allowed values.
        where: the place: a `Span`, or a path, tensor, node or site as text.
        help: the remedy, as an imperative.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INPUT

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: Span | str | None = None,
        help: str | None = None,
    ) -> None:
        assert code in CATALOGUE, f"error code {code} is not in the catalogue"
        self.code = code
        self.message = message
        self.where = where
        self.help = help
        super().__init__(self.render())

    def render(self) -> str:
        """The full text: place, code, message, excerpt, remedy."""
        place = f"{self.where}: " if self.where is not None else ""
        lines = [f"{place}error[{self.code}]: {self.message}"]
        if isinstance(self.where, Span) and self.where.text:
            lines.append(self.where.excerpt())
        if self.help:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """The error as JSON-ready data (`--json`)."""
        where = self.where
        place: object = where
        if isinstance(where, Span):
            place = {"file": where.file, "line": where.line, "column": where.column}
        return {"code": self.code, "message": self.message, "where": place, "help": self.help}


class PolicyError(EffcError):
    """The policy cannot be read or contradicts itself."""


class ModelError(EffcError):
    """The model cannot be read, captured or supported."""


class PassError(EffcError):
    """A pass cannot run, or broke its contract."""


class NoMatchError(PassError):
    """A rule of the policy matched no site."""

    exit_code = ExitCode.NO_MATCH


class VerifyError(EffcError):
    """A program violates the rules of the IR."""


class KernelError(EffcError):
    """No kernel can serve an operator."""


class GateError(EffcError):
    """A compiled model is worse than its policy allows."""

    exit_code = ExitCode.GATE


class TargetError(EffcError):
    """The machine asked for is not there."""

    exit_code = ExitCode.TARGET


class ArtifactError(EffcError):
    """An artifact cannot be read or written."""


class GenerationError(EffcError):
    """A call to the engine cannot be served."""


class ExportError(EffcError):
    """A program cannot be exported."""


class InternalError(EffcError):
    """A defect of effc itself."""

    exit_code = ExitCode.INTERNAL


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate closest to `word`, or None when nothing is close."""
    found = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A help text: the nearest name first, then what is allowed."""
    names = sorted(candidates)
    near = nearest(word, names)
    allowed = "allowed: " + ", ".join(names) if names else "nothing is allowed here"
    return f"did you mean '{near}'? {allowed}" if near else allowed
