"""The original through the library, whole and damaged, against readings without a cache.

Damage is checked with an attention of our own that reads everything at once and hides from each KV
head the keys that were taken from it: no cache, no batch, no padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from effc.diagnostics import EffcError, ModelError
from effc.evaluate.ablation import RANDOM_IMAGE, RANDOM_KV, Ablation
from effc.evaluate.answering import ModelAnswers
from effc.evaluate.tasks.base import Item
from effc.frontend.huggingface.original import OriginalModel
from effc.tokenizer import open_tokenizer
from tests.evaluate import scored

SEED = 5


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("text")
    return folder, scored.save_text_model(folder)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("seeing")
    return folder, scored.save_seeing_model(folder)


def answers(folder: Path, items: list[Item], ablation: Ablation | None = None) -> list[str]:
    original = OriginalModel.open(folder, ablation)
    speaker = ModelAnswers(original, open_tokenizer(original.info), batch_tokens=150)
    return speaker.answer(items, scored.NEW_TOKENS)


def pictures(item: Item) -> dict[str, Tensor]:
    if not item.images:
        return {}
    return {"pixel_values": torch.cat([scored.pixels(image) for image in item.images])}


def plainly(model: Any, items: list[Item]) -> list[str]:
    said = [scored.greedy(model, scored.ids_of(item.prompt), **pictures(item)) for item in items]
    return [scored.text_of(tokens) for tokens in said]


HIDDEN: dict[int, Tensor] = {}
"""Layer -> [H_kv, S] keys that the queries from `FROM` on do not see."""

FROM = [0]


def hiding(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> Any:
    """Causal attention in plain words."""
    G, T = q.shape[1] // k.shape[1], q.shape[2]
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1).expand(q.shape[1], T, T).clone()
    if (gone := HIDDEN.get(module.layer_idx)) is not None:
        full = torch.zeros(gone.shape[0], T, dtype=torch.bool)
        full[:, : gone.shape[1]] = gone
        hidden[:, FROM[0] :] |= full.repeat_interleave(G, 0)[:, None]
    scores = q @ k.repeat_interleave(G, 1).transpose(2, 3) * options["scaling"]
    law = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return (law @ v.repeat_interleave(G, 1)).transpose(1, 2), None


@pytest.fixture
def hidden() -> Iterator[dict[int, Tensor]]:
    from transformers import AttentionInterface

    AttentionInterface.register("hiding", hiding)
    yield HIDDEN
    HIDDEN.clear()


def test_the_original_answers_as_the_library_does(text: tuple[Path, Any]) -> None:
    folder, model = text
    items = scored.random_items(12)
    assert answers(folder, items) == plainly(model, items)


def test_the_original_sees(seeing: tuple[Path, Any]) -> None:
    folder, model = seeing
    items = [*scored.random_items(4, images=2), *scored.random_items(2, images=1)]
    assert answers(folder, items) == plainly(model, items)


def test_taking_nothing_changes_nothing(text: tuple[Path, Any], seeing: tuple[Path, Any]) -> None:
    """Context and question are read apart then, and still every answer is the same."""
    words, images = scored.random_items(12), scored.random_items(5, images=2)
    assert answers(text[0], words, Ablation(RANDOM_KV, 0.0, SEED)) == plainly(text[1], words)
    for kind in (RANDOM_KV, RANDOM_IMAGE):
        assert answers(seeing[0], images, Ablation(kind, 0.0, SEED)) == plainly(seeing[1], images)


@pytest.mark.parametrize("share", (0.25, 0.5, 1.0))
def test_random_kv_hides_a_share_of_the_context_from_each_head(
    text: tuple[Path, Any], hidden: dict[int, Tensor], share: float
) -> None:
    folder, model = text
    items, ablation = scored.random_items(9), Ablation(RANDOM_KV, share, SEED)
    expected = []
    model.set_attn_implementation("hiding")
    for index, item in enumerate(items):
        FROM[0] = n = 1 + len(item.context.split())
        generator = ablation.generator(index)
        for layer in range(2):
            gone = torch.ones(2, n, dtype=torch.bool)
            for head in gone:
                head[ablation.choose(n, generator)] = False
                assert int(head.sum()) == int(share * n + 0.5)
            hidden[layer] = gone
        expected += plainly(model, [item])
    model.set_attn_implementation("sdpa")
    hidden.clear()
    assert answers(folder, items, ablation) == expected
    assert expected != plainly(model, items)


@pytest.mark.parametrize("share", (0.5, 1.0))
def test_random_image_hides_a_share_of_the_visual_tokens(
    seeing: tuple[Path, Any], hidden: dict[int, Tensor], share: float
) -> None:
    folder, model = seeing
    items, ablation = scored.random_items(5, images=2), Ablation(RANDOM_IMAGE, share, SEED)
    expected = []
    FROM[0] = 0
    model.model.language_model.set_attn_implementation("hiding")
    for index, item in enumerate(items):
        ids = np.array(scored.ids_of(item.prompt))
        visual = np.flatnonzero(ids == scored.IMAGE)
        kept = visual[ablation.choose(len(visual), ablation.generator(index))]
        assert len(kept) == len(visual) - int(share * len(visual) + 0.5)
        gone = torch.from_numpy((ids == scored.IMAGE) & ~np.isin(np.arange(len(ids)), kept))
        for layer in range(2):
            hidden[layer] = gone.expand(2, -1)
        expected += plainly(model, [item])
    model.model.language_model.set_attn_implementation("sdpa")
    hidden.clear()
    assert answers(folder, items, ablation) == expected
    assert expected != plainly(model, items)


def test_without_a_context_nothing_is_taken(text: tuple[Path, Any]) -> None:
    """Only the first token, which stands before everything, is not the question's."""
    folder, model = text
    item = Item("w3 w4 w5 w6", "", "w1")
    question = Item("", "w3 w4 w5 w6", "w1")
    half = Ablation(RANDOM_KV, 0.4, SEED)
    assert answers(folder, [question], half) == plainly(model, [question])
    assert answers(folder, [item, question], half)[1] == plainly(model, [question])[0]


def test_seeds_decide_and_batches_do_not(text: tuple[Path, Any]) -> None:
    items = scored.random_items(12)
    original = OriginalModel.open(text[0], Ablation(RANDOM_KV, 0.5, SEED))
    tokenizer = open_tokenizer(original.info)
    first = ModelAnswers(original, tokenizer, batch_tokens=1).answer(items, 4)
    assert answers(text[0], items, Ablation(RANDOM_KV, 0.5, SEED)) == first
    assert answers(text[0], items, Ablation(RANDOM_KV, 0.5, SEED + 1)) != first


def test_what_cannot_be_taken_is_refused(text: tuple[Path, Any], tmp_path: Path) -> None:
    items = scored.random_items(1)
    with pytest.raises(EffcError, match="shows no images"):
        answers(text[0], items, Ablation(RANDOM_IMAGE, 0.5, SEED))
    from tests.e2e.families import Family

    windows = {"sliding_window": 4, "vocab_size": scored.VOCABULARY, "eos_token_id": scored.EOS}
    Family("Mistral", windows).save(tmp_path)
    scored.save_tokenizer(tmp_path)
    with pytest.raises(EffcError, match="has a DynamicSlidingWindowLayer"):
        answers(tmp_path, items, Ablation(RANDOM_KV, 0.5, SEED))


@pytest.mark.parametrize(
    ("given", "words"),
    (
        ("random-kw=.5", "knows no 'random-kw'"),
        ("random-kv", "takes a share from 0 to 1, found ''"),
        ("random-kv=half", "found 'half'"),
        ("random-image=1.5", "found '1.5'"),
        ("random-image=nan", "found 'nan'"),
    ),
)
def test_ablations_that_are_none(given: str, words: str) -> None:
    with pytest.raises(EffcError, match="error.E0101") as caught:
        Ablation.parse(given, 0)
    assert words in caught.value.message


def test_missing_weights_are_not_made_up(text: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in text[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        OriginalModel.open(tmp_path)


def test_half_precision_weights_are_computed_in_float32(
    text: tuple[Path, Any], tmp_path: Path
) -> None:
    model = OriginalModel.open(text[0])._model.half()
    model.save_pretrained(tmp_path)
    opened = OriginalModel.open(tmp_path)
    assert opened.info.dtype == torch.float32
    assert torch.equal(opened._model.lm_head.weight, model.lm_head.weight.float())
