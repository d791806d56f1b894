"""What a model says to the items of a task: items to tokens, tokens to batches, tokens to text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from effc.diagnostics import EffcError
from effc.evaluate.greedy import common_prefix
from effc.evaluate.tasks.base import IMAGE_WORD, Item
from effc.ir.program import ModelInfo
from effc.progress import SILENT, Progress
from effc.runtime.images import expand_image_tokens

if TYPE_CHECKING:
    from torch import Tensor

BATCH_TOKENS = 1 << 14
"""Most tokens of one batch, padding and new ones included."""


class Answerer(Protocol):
    """Answers items: a model, a shortcut, whoever is to be scored."""

    def answer(
        self, items: Sequence[Item], max_new_tokens: int | None = None, progress: Progress = SILENT
    ) -> list[str]:
        """What it says to each item.

        Args:
            items: of one task.
            max_new_tokens: the most tokens of an answer; None is those of the longest expected
                answer, and one for eos.
            progress: told how many items are done.

        Raises:
            EffcError: E0414, the items mean nothing to the model.
        """
        ...


@dataclass(frozen=True)
class Prompt:
    """What a model reads of an item.

    Attributes:
        ids: T tokens; every image stands for as many as the model takes for one.
        context: how many of them belong to the item's context.
        images: `[H, W, 3]` each, in the order of their tokens.
        index: of the item, so that random choices do not depend on batches.
    """

    ids: tuple[int, ...]
    context: int
    images: tuple[NDArray[np.uint8], ...]
    index: int


class LanguageModel(Protocol):
    """A model as evaluation needs it: it continues tokens and tells its laws."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model; `eos` ends its answers."""
        ...

    def continue_prompts(self, prompts: Sequence[Prompt], new_tokens: int) -> list[list[int]]:
        """The greedy continuation of each prompt, at most `new_tokens` long, eos included."""
        ...

    def logits(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits `[T, V]` after each token of rows of equal length T."""
        ...


@dataclass(frozen=True)
class ModelAnswers:
    """Answers of a language model, greedily chosen.

    Attributes:
        model: continues tokens.
        tokenizer: of the `tokenizers` library.
        batch_tokens: see `BATCH_TOKENS`.
    """

    model: LanguageModel
    tokenizer: Any
    batch_tokens: int = BATCH_TOKENS

    def answer(
        self, items: Sequence[Item], max_new_tokens: int | None = None, progress: Progress = SILENT
    ) -> list[str]:
        """See `Answerer.answer`."""
        info = self.model.info
        require_words(self.tokenizer, items, info)
        prompts = [self._prompt(item, index) for index, item in enumerate(items)]
        new_tokens = max_new_tokens or 1 + max(len(self._encode(i.answer)) for i in items)
        _require_room(prompts, new_tokens, info)
        texts, done = [""] * len(items), 0
        for batch in batches([len(p.ids) for p in prompts], new_tokens, self.batch_tokens):
            said = self.model.continue_prompts([prompts[i] for i in batch], new_tokens)
            for index, tokens in zip(batch, said, strict=True):
                texts[index] = self._text(tokens)
            done += len(batch)
            progress.advance("items answered", done, len(items))
        return texts

    def _prompt(self, item: Item, index: int) -> Prompt:
        info = self.model.info
        ids = list(self.tokenizer.encode(item.prompt).ids)
        context = ids[: common_prefix(ids, self.tokenizer.encode(item.context).ids)]
        if item.images:
            _require_sight(ids, item, info)
            ids, context = (
                expand_image_tokens(each, info.image_token, info.image_tokens)  # type: ignore[arg-type]
                for each in (ids, context)
            )
        return Prompt(tuple(ids), len(context), item.images, index)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _text(self, tokens: Sequence[int]) -> str:
        """The text before eos; other special tokens show by name, they are no part of an answer."""
        ends = self.model.info.eos
        end = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        return self.tokenizer.decode(list(tokens[:end]), skip_special_tokens=False).strip()


def batches(lengths: Sequence[int], new_tokens: int, budget: int) -> Iterator[list[int]]:
    """Indices of prompts of similar length, longest first, each batch within a budget of tokens.

    A batch is as wide as its longest prompt and all new tokens; one prompt alone may exceed the
    budget.

    Args:
        lengths: tokens of each prompt.
        new_tokens: tokens that each may get.
        budget: most tokens of a batch, padding included.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        rows = max(1, budget // (lengths[order[0]] + new_tokens))
        yield order[:rows]
        order = order[rows:]


def require_words(tokenizer: Any, items: Iterable[Item], info: ModelInfo) -> None:
    """Refuse items with words that the tokenizer does not know.

    Raises:
        EffcError: E0414, naming the first of them.
    """
    texts = (text for item in items for text in (item.context, item.question, item.answer))
    words = dict.fromkeys(word for text in texts for word in text.split())
    unknown = [word for word in words if not _knows(tokenizer, word)]
    if unknown:
        more = f" (and {len(unknown) - 1} other words)" if len(unknown) > 1 else ""
        raise EffcError(
            "E0414",
            f"the model's tokenizer has no token for {unknown[0]!r}{more}",
            where=info.source,
            help="name a task that the model was trained for; `effc evaluate --list` has them all",
        )


def _knows(tokenizer: Any, word: str) -> bool:
    model = tokenizer.model
    unknown = getattr(model, "unk_token", None)
    lost = tokenizer.token_to_id(unknown) if unknown else getattr(model, "unk_id", None)
    try:
        ids = tokenizer.encode(word, add_special_tokens=False).ids
    except Exception:  # the library raises bare exceptions where there is no unknown token
        return False
    return bool(ids) and lost not in ids


def _require_sight(ids: Sequence[int], item: Item, info: ModelInfo) -> None:
    if info.image_token is None or info.image_tokens is None:
        raise EffcError(
            "E0414",
            "the task shows images, and the model reads text alone",
            where=info.source,
            help="name a vision-language model, or a task without images",
        )
    found = list(ids).count(info.image_token)
    if found != len(item.images):
        raise EffcError(
            "E0414",
            f"the task's prompt has {len(item.images)} images, and the model's tokenizer makes "
            f"{found} image tokens of it",
            where=info.source,
            help=f"the tokenizer must make one token of {IMAGE_WORD!r}, that of config.json",
        )


def _require_room(prompts: Sequence[Prompt], new_tokens: int, info: ModelInfo) -> None:
    if not info.eos:
        raise EffcError(
            "E0414",
            "the model names no end token, so none of its answers would end",
            where=info.source,
            help="name one: eos_token_id in generation_config.json",
        )
    longest = max(len(prompt.ids) for prompt in prompts)
    if info.context is not None and longest + new_tokens > info.context:
        raise EffcError(
            "E0414",
            f"the longest item has {longest} tokens and its answer up to {new_tokens}, more than "
            f"the context of {info.context} tokens",
            where=info.source,
            help="name a task with shorter items, or a model with a longer context",
        )
