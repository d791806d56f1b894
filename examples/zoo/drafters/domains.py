"""The three kinds of text: Python without words, words without Python, and tables of numbers.

`code` and `prose` come from the files, and the split of files, that `lm` has; so what is held out
here was held out there. `numbers` are generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from examples.zoo.drafters import numbers, separate
from examples.zoo.lm.data import Corpus, Document

# Shorter documents say little about their kind of text.
LEAST_CHARACTERS = 400
TRAINING_TABLES, HELD_OUT_TABLES = 2000, 100


def _code(corpus: Corpus, held_out: bool) -> list[Document]:
    return _parts(corpus, held_out, separate.code)


def _prose(corpus: Corpus, held_out: bool) -> list[Document]:
    return _parts(corpus, held_out, separate.prose)


def _parts(
    corpus: Corpus, held_out: bool, part: Callable[[separate.Source], str]
) -> list[Document]:
    documents = []
    for whole in corpus.held_out if held_out else corpus.train:
        source = separate.parse(whole.text)
        text = part(source) if source else ""
        if len(text) >= LEAST_CHARACTERS:
            documents.append(Document(whole.path, text))
    return documents


def _numbers(corpus: Corpus, held_out: bool) -> list[Document]:
    del corpus  # Arithmetic is the same in every installation.
    first = numbers.EVALUATION_SEED if held_out else 0
    seeds = range(first, first + (HELD_OUT_TABLES if held_out else TRAINING_TABLES))
    return [Document(f"numbers/{seed}", numbers.document(seed)) for seed in seeds]


# The documents of one split: `DOMAINS[name](corpus, held_out)`.
DOMAINS: Mapping[str, Callable[[Corpus, bool], list[Document]]] = {
    "code": _code,
    "prose": _prose,
    "numbers": _numbers,
}
