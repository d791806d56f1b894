"""Models as `effc evaluate` takes them: compiled or original, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effc.diagnostics import EffcError
from effc.progress import Progress

if TYPE_CHECKING:
    from effc.evaluate.ablation import Ablation
    from effc.evaluate.answering import LanguageModel

FROM_ONNX = "{} was compiled under an empty policy first: nothing runs an ONNX file as it is"


@dataclass(frozen=True)
class Evaluated:
    """A model that can be scored.

    Attributes:
        path: as it was named.
        kind: "artifact", "original" or "onnx".
        model: what continues tokens.
        tokenizer: its own.
        notes: what the user should know.
    """

    path: Path
    kind: str
    model: LanguageModel
    tokenizer: Any
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, str]:
        """Which model it is, and in what element type it computes."""
        dtype = str(self.model.info.dtype).removeprefix("torch.")
        return {"model": str(self.path), "kind": self.kind, "dtype": dtype}


def open_model(path: Path, ablation: Ablation | None, progress: Progress) -> Evaluated:
    """An artifact, a model folder (the original, through transformers) or an ONNX file.

    Raises:
        EffcError: as for `effc run` and `effc compile`; E0101, only an original can be ablated;
            E0414, there is no tokenizer.
    """
    from effc.ir.manifest import MANIFEST

    progress.step("opening", str(path))
    if path.is_dir() and not (path / MANIFEST).is_file():
        from effc.frontend.huggingface.original import OriginalModel

        original = OriginalModel.open(path, ablation)
        return Evaluated(path, "original", original, _tokenizer(original))
    if ablation is not None:
        raise EffcError(
            "E0101",
            "--ablate damages the original model as transformers runs it, not what was compiled",
            where=str(path),
            help="name the model folder",
        )
    return _compiled(path, progress)


def _compiled(path: Path, progress: Progress) -> Evaluated:
    from effc import api
    from effc.evaluate.engine_answers import EngineModel

    if path.is_dir():
        kind, notes, compiled = "artifact", (), api.load(path)
    else:
        kind, notes = "onnx", (FROM_ONNX.format(path),)
        progress.step("compiling", f"{path} under an empty policy")
        compiled = api.optimize(path)
    model = EngineModel(compiled.engine)
    return Evaluated(path, kind, model, _tokenizer(model), notes)


def _tokenizer(model: LanguageModel) -> Any:
    from effc.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(model.info)
    if tokenizer is None:
        raise EffcError(
            "E0414",
            "the model has no tokenizer, so the words of a task mean nothing to it",
            where=model.info.source,
            help="put its tokenizer.json beside the model",
        )
    return tokenizer


def require_same_tokens(here: Evaluated, there: Evaluated) -> None:
    """Refuse models whose laws are about different tokens.

    Raises:
        EffcError: E0101.
    """
    sizes = [each.model.info.vocabulary for each in (here, there)]
    reasons = [f"vocabularies of {sizes[0]} and {sizes[1]} tokens"] if sizes[0] != sizes[1] else []
    if here.tokenizer.to_str() != there.tokenizer.to_str():
        reasons.append("different tokenizers")
    if reasons:
        raise EffcError(
            "E0101",
            f"the models cannot be compared on a text: they have {' and '.join(reasons)}",
            where=str(there.path),
            help="compare them on tasks of items, or name models with the same tokenizer",
        )
