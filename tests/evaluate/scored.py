"""A tiny model with a word tokenizer, and a task of which it is known what the model answers.

The model is random and small, so that its greedy answers can be found without a cache and without
batches: by reading everything again for each new token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from effc.evaluate.tasks.base import Item, Task, stream
from tests.e2e.families import Family, enliven

WORDS = tuple(f"w{n}" for n in range(17))
SPECIALS = ("<|bos|>", "<|eos|>", "<|pad|>", "<image>")
VOCABULARY = len(SPECIALS) + len(WORDS)
BOS, EOS, PAD, IMAGE = range(4)
NEW_TOKENS = 4
SIDE, TOKENS_PER_IMAGE = 16, 16

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "max_position_embeddings": 128,
}


def save_text_model(folder: Path, **options: Any) -> Any:
    """A tiny Llama of this vocabulary, written to a folder; fp32."""
    model = Family("Llama", _SHAPE | options, seed=3).build()
    with torch.no_grad():
        model.lm_head.weight[EOS] *= 3  # ends some of its answers
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_seeing_model(folder: Path) -> Any:
    """A tiny LLaVA of this vocabulary for images of 16 x 16 pixels in 16 tokens; fp32."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    text = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16}
    eyes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **eyes, num_hidden_layers=2, image_size=SIDE, patch_size=SIDE // 4
        ),
        text_config=LlamaConfig(**_SHAPE, **text, num_key_value_heads=2),
        image_token_index=IMAGE,
        eos_token_id=EOS,
        bos_token_id=BOS,
        pad_token_id=PAD,
    )
    torch.manual_seed(1)
    model = enliven(LlavaForConditionalGeneration(config).float().eval())
    with torch.no_grad():
        model.lm_head.weight[IMAGE] = 0  # never says what stands for an image
    model.save_pretrained(folder)
    sides = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(do_resize=False, do_center_crop=False, size=sides).save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_tokenizer(folder: Path) -> None:
    """One token per word, bos in front of texts; unknown words are the library's error."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate((*SPECIALS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[BOS]} $A", special_tokens=[(SPECIALS[BOS], BOS)]
    )
    names = {"bos_token": SPECIALS[BOS], "eos_token": SPECIALS[EOS], "pad_token": SPECIALS[PAD]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def ids_of(text: str) -> list[int]:
    """The tokens of a prompt, images expanded."""
    ids = [BOS]
    for word in text.split():
        token = (*SPECIALS, *WORDS).index(word)
        ids += [token] * (TOKENS_PER_IMAGE if token == IMAGE else 1)
    return ids


def text_of(ids: Sequence[int]) -> str:
    """The words before eos."""
    end = list(ids).index(EOS) if EOS in ids else len(ids)
    return " ".join((*SPECIALS, *WORDS)[token] for token in ids[:end])


@torch.inference_mode()
def greedy(model: Any, ids: Sequence[int], new_tokens: int = NEW_TOKENS, **seen: Any) -> list[int]:
    """The greedy continuation, without a cache; eos included."""
    said: list[int] = []
    while len(said) < new_tokens and EOS not in said:
        logits = model(input_ids=torch.tensor([[*ids, *said]]), use_cache=False, **seen).logits
        said.append(int(logits[0, -1].argmax()))
    return said


def random_items(count: int, images: int = 0) -> list[Item]:
    """Items of random words in contexts of several lengths; the answers mean nothing yet."""
    return [_random_item(stream(7, index), index, images) for index in range(count)]


def _random_item(rng: np.random.Generator, index: int, images: int) -> Item:
    words = [WORDS[n] for n in rng.integers(0, len(WORDS), 6 + 3 * (index % 3))]
    shown = [rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(images)]
    context = " ".join([*words[:2], *["<image>"] * images, *words[2:-2]])
    facets = {"length": str(6 + 3 * (index % 3)), "place": ("early", "middle", "late")[index % 2]}
    return Item(context, " ".join(words[-2:]), WORDS[0], tuple(shown), facets)


def known_items(model: Any, count: int) -> tuple[list[Item], list[bool]]:
    """Items that the model ends within `NEW_TOKENS`, and whether it answers them correctly.

    Two of three expect what the model says, the others something else.
    """
    items: list[Item] = []
    for item in random_items(40 * count):
        if len(items) == count:
            break
        said = greedy(model, ids_of(item.prompt))
        if said[-1] == EOS and len(said) > 1:
            right = len(items) % 3 != 0
            answer = text_of(said) if right else f"{text_of(said)} w1"
            facets = dict(item.facets)
            items.append(Item(item.context, item.question, answer, facets=facets))
    assert len(items) == count, "the model ends too few answers; choose another seed"
    return items, [n % 3 != 0 for n in range(count)]


ITEMS: list[Item] = []
"""What `Known` asks; tests put items here."""


@dataclass(frozen=True)
class Known(Task):
    """The items of `ITEMS`."""

    name: ClassVar[str] = "test.known"
    summary: ClassVar[str] = "items whose answers by one model are known"
    chance: ClassVar[float] = 1 / len(WORDS)

    def items(self, count: int, seed: int) -> list[Item]:
        """The first ones, whatever the seed."""
        return ITEMS[:count]

    def shortcut(self, item: Item) -> str:
        """Always the same word."""
        return WORDS[0]


class Scripted:
    """An answerer that says what it was told to say."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def answer(self, items: Sequence[Item], *_: Any, **__: Any) -> list[str]:
        return self.texts[: len(items)]


def pixels(image: NDArray[np.uint8]) -> torch.Tensor:
    """One image as CLIP's processor makes it."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    scaled = torch.from_numpy(image.astype(np.float64) / 255).float()
    return ((scaled - mean) / std).permute(2, 0, 1)[None]
