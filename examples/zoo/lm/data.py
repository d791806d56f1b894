"""The text of family `lm`: corpus, split, tokenizer, training rows.

The corpus is the source of the Python standard library, which every Python installation has.
Other Python versions have other sources, so a digest stands beside every figure.
"""

from __future__ import annotations

import hashlib
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

VOCABULARY = 4096
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
BOS_ID, EOS_ID, PAD_ID = 0, 1, 2
HELD_OUT_SHARE = 0.05

# `encodings` and `pydoc_data` are tables and one giant string, not code.
EXCLUDED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "encodings", "pydoc_data"}
)
# `_sysconfigdata*` records how and where this interpreter was built: different on every machine.
EXCLUDED_PREFIX = "_sysconfigdata"

# A newline ends a piece and spaces begin one, so a prompt that stops after a line is cut where
# training text is cut too. Indentation of any depth is one piece.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
MEAN_CUT_DISTANCE = 1000


@dataclass(frozen=True)
class Document:
    """One source file: its path below the library folder and its text."""

    path: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the file belongs to the held-out split; depends on its path alone."""
        head = hashlib.sha256(self.path.encode()).digest()[:4]
        return int.from_bytes(head, "big") < HELD_OUT_SHARE * 2**32


@dataclass(frozen=True)
class Corpus:
    """All documents, in path order and without copies."""

    documents: tuple[Document, ...]

    @property
    def train(self) -> list[Document]:
        return [document for document in self.documents if not document.held_out]

    @property
    def held_out(self) -> list[Document]:
        return [document for document in self.documents if document.held_out]

    @property
    def digest(self) -> str:
        """Name the exact corpus: sha256 over every path and text."""
        total = hashlib.sha256()
        for document in self.documents:
            text = hashlib.sha256(document.text.encode()).hexdigest()
            total.update(f"{document.path}\0{text}\n".encode())
        return total.hexdigest()


def load_corpus(root: Path | None = None, pattern: str = "**/*.py") -> Corpus:
    """Read the files below a folder, by default the running interpreter's standard library."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    documents = []
    for path in _source_files(root, pattern):
        text = _read(path)
        if text is None or text in seen:
            continue
        seen.add(text)
        documents.append(Document(path.relative_to(root).as_posix(), text))
    return Corpus(tuple(documents))


def _source_files(root: Path, pattern: str) -> list[Path]:
    def wanted(path: Path) -> bool:
        folders = path.relative_to(root).parts[:-1]
        return not EXCLUDED_FOLDERS & set(folders) and not path.name.startswith(EXCLUDED_PREFIX)

    return sorted(filter(wanted, root.glob(pattern)), key=lambda path: path.as_posix())


def _read(path: Path) -> str | None:
    """Return the text, or nothing for an empty file and for the test suite's broken encodings."""
    try:
        return path.read_bytes().decode("utf-8") or None
    except UnicodeDecodeError:
        return None


def train_tokenizer(texts: Sequence[str], size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; every string survives encoding and decoding unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[BOS, EOS, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Encode plain text, without the leading bos."""
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Return the text of tokens; bos, eos and pad show by name."""
    return tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)


def encode_with_cuts(
    tokenizer: PreTrainedTokenizerFast, text: str, rng: random.Random
) -> list[int]:
    """Encode training text in parts that end at random characters.

    A user's prompt stops anywhere, for instance after a space that BPE would have joined to the
    next word. Cutting the training text now and then shows the model such endings.
    """
    ids: list[int] = []
    for part in _cut(text, rng):
        ids += encode(tokenizer, part)
    return ids


def _cut(text: str, rng: random.Random) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + 1 + int(rng.expovariate(1 / MEAN_CUT_DISTANCE))
        yield text[start:end]
        start = end


def pack(
    tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document], seed: int
) -> NDArray[np.int16]:
    """Join the documents, shuffled and each closed by eos, into one stream of tokens."""
    rng = random.Random(seed)
    shuffled = list(documents)
    rng.shuffle(shuffled)
    stream: list[int] = []
    for document in shuffled:
        stream += encode_with_cuts(tokenizer, document.text, rng)
        stream.append(EOS_ID)
    return np.asarray(stream, dtype=np.int16)


def rows(stream: NDArray[np.int16], length: int, first: int, count: int, seed: int) -> Tensor:
    """Return rows `first` to `first + count` of an endless shuffled order.

    Each row is bos and `length` tokens from anywhere in the stream; a pass visits every place
    once. Neighbouring rows come from different files, else one file would sway a whole step.
    Every row begins with bos: at inference too, bos marks the start of what the model can see,
    be it a file's first line or not.
    """
    blocks = len(stream) // length
    turns, places = np.divmod(np.arange(first, first + count), blocks)
    starts = np.empty(count, dtype=np.int64)
    for turn in np.unique(turns):
        order = np.random.default_rng([seed, length, turn]).permutation(blocks)
        starts[turns == turn] = order[places[turns == turn]] * length
    index = starts[:, None] + np.arange(length)
    body = torch.from_numpy(stream[index].astype(np.int64))
    return torch.cat([torch.full((count, 1), BOS_ID), body], dim=1)  # [B, 1 + T]
