"""One model through the compiler, against transformers: identical, refused, or a defect."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.e2e import oracle
from tests.e2e.families import VOCABULARY, enliven
from tests.e2e.variants import Variant

IDENTICAL, REFUSED, UNBUILT, VOID = "identical", "refused", "cannot build", "void"
WRONG, CRASHED = "WRONG", "CRASHED"

NEW_TOKENS = 24
MAX_PARAMETERS = 16_000_000
PROMPT_SEEDS = 4


@dataclass(frozen=True)
class Verdict:
    """What became of a variant.

    Attributes:
        name: of the variant.
        result: one of the constants above.
        reason: one line; empty for a model that is identical without reservation.
    """

    name: str
    result: str
    reason: str = ""

    @property
    def is_defect(self) -> bool:
        """Whether effc is to blame."""
        return self.result in (WRONG, CRASHED)


def check(variant: Variant) -> Verdict:
    """Compile a tiny model of the variant and compare what it says."""
    import effc

    with tempfile.TemporaryDirectory() as folder:
        try:
            model = _build(variant, Path(folder))
        except Exception as error:  # the library's own classes refuse in every way
            return Verdict(variant.name, UNBUILT, one_line(error))
        try:
            compiled = effc.optimize(folder)
        except effc.EffcError as error:
            return Verdict(variant.name, REFUSED, f"{error.code}: {error.message}")
        except Exception as error:
            return Verdict(variant.name, CRASHED, f"compiling: {one_line(error)}")
        return _compare(variant.name, model, compiled)


def one_line(error: BaseException) -> str:
    """The kind of an exception and the start of its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]


def _build(variant: Variant, folder: Path) -> Any:
    import transformers

    config = variant.config()
    cls: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        size = sum(p.numel() for p in cls(config).parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(f"the tiny configuration still has {size / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    model = cls._from_config(
        variant.config(), attn_implementation="eager", experts_implementation="eager"
    )
    enliven(model.float().eval()).save_pretrained(folder)
    # What was saved and what is asked must not differ by what saving leaves out.
    model = cls.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        model(torch.arange(7)[None] + 5)
    return model


def _compare(name: str, model: Any, compiled: Any) -> Verdict:
    objections, caveat = [], ""
    for seed in range(PROMPT_SEEDS):
        questions = oracle.prompts(VOCABULARY, lengths=(41, 7), seed=seed)
        try:
            answers = oracle.answers(model, questions, NEW_TOKENS)
            if not all(answer.agrees_with_forward for answer in answers):
                caveat = "to transformers without its cache; with it, it contradicts itself"
                answers = oracle.answers(model, questions, NEW_TOKENS, use_cache=False)
        except Exception as error:
            return Verdict(name, VOID, f"transformers itself fails: {one_line(error)}")
        objections = [answer.objection for answer in answers if answer.objection]
        if not objections:
            break
    else:
        return Verdict(name, VOID, objections[0])
    try:
        difference = _difference(answers, compiled)
    except Exception as error:
        return Verdict(name, CRASHED, f"running: {one_line(error)}")
    return Verdict(name, WRONG, difference) if difference else Verdict(name, IDENTICAL, caveat)


def _difference(answers: list[oracle.Answer], compiled: Any) -> str:
    """How the compiled model departs from the original; empty if it does not."""
    for answer in answers:
        logits = compiled(answer.tokens[None]).logits[0]
        error = float((logits - answer.logits).abs().max())
        if not error <= answer.tolerance:
            return f"logits differ by {error:.1e} (allowed: {answer.tolerance:.1e})"
    options = {"max_new_tokens": NEW_TOKENS, "eos_token_id": []}
    alone = compiled.generate(answers[0].prompt[None], **options)
    if alone[0].tolist() != answers[0].tokens.tolist():
        return "greedy tokens differ"
    ids, mask = oracle.left_padded([answer.prompt for answer in answers])
    batch = compiled.generate(ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    expected = [answer.tokens[len(answer.prompt) :].tolist() for answer in answers]
    return "" if batch.tolist() == expected else "greedy tokens of a ragged batch differ"
