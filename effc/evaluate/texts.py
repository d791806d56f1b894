"""The text that models are compared on: from a file, or written by the original itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effc.diagnostics import EffcError
from effc.ir.program import ModelInfo
from effc.runtime.engine import Engine
from effc.spec.schema import QualitySpec

SAMPLED_LENGTH = 64
LONGEST_ROW = 512
LEAST_ROWS = 8
"""Rows that the tokens of a file should at least make: standard errors come from rows."""

SEED = 20


@dataclass(frozen=True)
class EvaluationText:
    """Token sequences that both models read.

    Attributes:
        rows: at least two tokens each.
        label: where they come from, for reports.
    """

    rows: tuple[tuple[int, ...], ...]
    label: str

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.rows))

    def to_dict(self) -> dict[str, object]:
        """Label and sizes, as they stand in a report."""
        return {"label": self.label, "rows": len(self.rows), "tokens": self.tokens}


def evaluation_text(
    engine: Engine | None, info: ModelInfo, tokenizer: Any | None, quality: QualitySpec | None
) -> EvaluationText:
    """The text to compare a model on.

    Args:
        engine: of the original model; None for a model that cannot generate.
        info: facts about the original model.
        tokenizer: of `tokenizers` or transformers; None for a model without one.
        quality: names a text file and says how many tokens to use at most. Without a file the
            original writes the text; without a tokenizer or an engine the ids are random.

    Raises:
        EffcError: E0409, the file cannot be used, or there is too little of it.
    """
    quality = quality or QualitySpec()
    if quality.tokens < 2:
        message = f"{quality.tokens} tokens are too few to compare models on"
        raise _unusable(message, "quality.tokens", "ask for a few hundred at least")
    if quality.data is not None:
        text = text_of_file(Path(quality.data), tokenizer, info, quality.tokens)
    elif engine is None or tokenizer is None:
        text = random_text(info, quality.tokens)
    else:
        text = sampled_text(engine, quality.tokens)
    return text if info.image_token is None else _without_images(text, info.image_token)


def _without_images(text: EvaluationText, image_token: int) -> EvaluationText:
    """The words of a text: there are no images that its image tokens could stand for."""
    rows = (tuple(token for token in row if token != image_token) for row in text.rows)
    kept = tuple(row for row in rows if len(row) >= 2)
    return EvaluationText(kept, f"{text.label}; words alone, no images")


def text_of_file(path: Path, tokenizer: Any | None, info: ModelInfo, tokens: int) -> EvaluationText:
    """The beginning of a file, cut into rows.

    A tokenizer that puts a first token in front of texts puts it in front of every row: models
    trained so are lost without it.

    Raises:
        EffcError: E0409, naming the reason.
    """
    if tokenizer is None:
        raise _unusable(
            "the model has no tokenizer, so a text means nothing to it",
            str(path),
            "leave out the file: the models are then compared on random token ids",
        )
    ids = _encode_beginning(path, tokenizer, tokens)
    special = _ids(tokenizer.encode(""))
    lead = (special[0],) if special and special[0] == info.bos else ()
    length = min(LONGEST_ROW, info.context or LONGEST_ROW, max(64, tokens // LEAST_ROWS))
    step = length - len(lead)
    pieces = [(*lead, *ids[start : start + step]) for start in range(0, len(ids), step)]
    rows = tuple(piece for piece in _cut(pieces, tokens) if len(piece) >= 2)
    if not rows:
        raise _unusable(f"the text has {len(ids)} tokens, too few to score", str(path))
    used = sum(map(len, rows))
    fewer = "" if used >= tokens - 1 else f" (all there is; {tokens} were asked for)"
    return EvaluationText(rows, f"the first {used} tokens of {path.name}{fewer}")


def sampled_text(engine: Engine, tokens: int) -> EvaluationText:
    """Text that the original writes by itself at temperature 1, the same on every call.

    Rows of 64 tokens start with the model's first token, or with a random one where it has none.
    They go on past end tokens: a row of one word would tell nothing.
    """
    info = engine.program.info
    length = min(SAMPLED_LENGTH, tokens, info.context or SAMPLED_LENGTH)
    rows = max(1, tokens // length)
    first = _first_tokens(info, rows)
    start = "its first token" if info.bos is not None else "random tokens"
    out = engine.generate(
        first, max_new_tokens=length - 1, do_sample=True, seed=SEED, eos_token_id=()
    )
    label = (
        f"sampled from the original, {rows} x {length} tokens after {start}, "
        f"temperature 1, seed {SEED}"
    )
    return EvaluationText(tuple(map(tuple, out.tolist())), label)


def random_text(info: ModelInfo, tokens: int) -> EvaluationText:
    """Uniformly random token ids, the same on every call."""
    length = min(SAMPLED_LENGTH, tokens, info.context or SAMPLED_LENGTH)
    rows = max(1, tokens // length)
    ids = _random_ids(info, rows, length)
    label = f"random token ids, {rows} x {length}, seed {SEED}"
    return EvaluationText(tuple(map(tuple, ids.tolist())), label)


def _first_tokens(info: ModelInfo, rows: int) -> torch.Tensor:
    if info.bos is not None:
        return torch.full((rows, 1), info.bos, dtype=torch.int64)
    return _random_ids(info, rows, 1)


def _random_ids(info: ModelInfo, rows: int, length: int) -> torch.Tensor:
    """Ids [rows, length] of ordinary tokens."""
    if info.vocabulary is None:
        raise _unusable(
            "the size of the model's vocabulary is not known, so no random ids can be drawn",
            info.source,
            "name a text file: quality.data, or --data",
        )
    special = {*info.eos, info.bos, info.pad, info.image_token}
    ordinary = [token for token in range(info.vocabulary) if token not in special]
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.randint(len(ordinary), (rows, length), generator=generator)
    return torch.tensor(ordinary)[chosen]


def _encode_beginning(path: Path, tokenizer: Any, tokens: int) -> list[int]:
    """At least `tokens` ids from the beginning of a file, fewer where it ends."""
    characters = 16 * tokens
    while True:
        text, ended = _read(path, characters)
        ids = _ids(tokenizer.encode(text, add_special_tokens=False))
        if ended or len(ids) > tokens:
            break
        characters *= 4
    if not text.strip():
        raise _unusable("the file is empty", str(path))
    return ids[:tokens]


def _read(path: Path, characters: int) -> tuple[str, bool]:
    """The first characters of a file, and whether they are all of it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(characters)
            return text, not file.read(1)
    except UnicodeDecodeError as error:
        reason = f"the file is not UTF-8 text ({error.reason})"
        raise _unusable(reason, str(path), "save it as UTF-8") from error
    except OSError as error:
        raise _unusable(f"the file cannot be read: {error.strerror}", str(path)) from error


def _ids(encoded: Any) -> list[int]:
    """Token ids from either library: an `Encoding`, or a list."""
    return list(getattr(encoded, "ids", encoded))


def _cut(rows: list[tuple[int, ...]], tokens: int) -> list[tuple[int, ...]]:
    """Rows, the last ones shortened or dropped, with at most `tokens` tokens in all."""
    kept = []
    for row in rows:
        kept.append(row[:tokens])
        tokens -= len(kept[-1])
    return kept


def _unusable(
    message: str,
    where: str,
    help: str = "name another text file, or none: the original then writes the text itself",
) -> EffcError:
    return EffcError("E0409", message, where=where, help=help)
