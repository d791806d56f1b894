"""The adapter for the EleutherAI harness, on tasks defined here; nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.evaluate import scored

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="the extra lm-eval is not installed (pip install 'effc[lm-eval]')",
)

WIDE = 24
"""The context of the model: texts longer than this are read in windows."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The library's model, and the adapter over its artifact."""
    import effc
    from effc.lm_eval import EffcLM

    folder = tmp_path_factory.mktemp("harness")
    model = scored.save_text_model(folder / "model", max_position_embeddings=WIDE)
    effc.optimize(folder / "model").save(folder / "out")
    return model, EffcLM(path=folder / "out")


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each) for each in arguments]


@torch.inference_mode()
def likelihood(model: Any, ids: list[int], said: list[int]) -> tuple[float, bool]:
    """Token by token, each after a reading of its own."""
    total, greedy = 0.0, True
    for n, token in enumerate(said):
        row = torch.tensor([[*ids, *said[:n]]])
        law = model(input_ids=row, use_cache=False).logits[0, -1].double().log_softmax(-1)
        total += float(law[token])
        greedy &= int(law.argmax()) == token
    return total, greedy


def test_log_likelihoods_are_those_of_the_library(both: tuple[Any, Any]) -> None:
    model, adapter = both
    asked = [("w1 w2", " w3"), ("w4 w5 w6 w7", " w8 w9"), ("", "w3 w4"), ("w1 w2", " w4")]
    context, greedy = "w3 w1 w4", scored.greedy(model, scored.ids_of("w3 w1 w4"), 2)
    asked.append((context, " " + " ".join(adapter._words.id_to_token(t) for t in greedy)))
    found = adapter.loglikelihood(requests(*asked), disable_tqdm=True)
    for (before, after), (value, best) in zip(asked, found, strict=True):
        said = scored.ids_of(after)[1:]
        expected, is_greedy = likelihood(model, scored.ids_of(before), said)
        assert value == pytest.approx(expected, abs=1e-5)
        assert best == is_greedy
    assert found[-1][1]


def test_long_texts_are_read_in_windows(both: tuple[Any, Any]) -> None:
    """One token of context before each window but the last, which is as wide as it can be."""
    model, adapter = both
    ids = scored.ids_of(" ".join(f"w{(5 * n * n) % 17}" for n in range(2 * WIDE + 7)))
    expected = likelihood(model, ids[:1], ids[1 : 1 + WIDE])[0]
    expected += likelihood(model, ids[WIDE : WIDE + 1], ids[WIDE + 1 : 2 * WIDE + 1])[0]
    expected += likelihood(model, ids[-8 - (WIDE - 7) : -7], ids[-7:])[0]
    text = scored.text_of(ids[1:])
    (found,) = adapter.loglikelihood_rolling(requests((text,)), disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-4)


def test_answers_are_greedy_and_end_at_the_stop(both: tuple[Any, Any]) -> None:
    model, adapter = both
    prompts = [" ".join(item.prompt.split()[:9]) for item in scored.random_items(6)]
    said = [scored.text_of(scored.greedy(model, scored.ids_of(p), 5)) for p in prompts]
    stop = said[0].split()[1]
    asked = [(p, {"until": [stop], "max_gen_toks": 5, "do_sample": False}) for p in prompts[:3]]
    asked += [(p, {"until": [], "max_gen_toks": 5}) for p in prompts[3:]]
    found = adapter.generate_until(requests(*asked), disable_tqdm=True)
    plain = [adapter._words.decode(scored.ids_of(text)[1:]) for text in said]
    expected = [text.split(stop)[0].strip() for text in plain[:3]] + plain[3:]
    assert [text.strip() for text in found] == expected


def test_the_harness_finds_and_scores_the_model(both: tuple[Any, Any], tmp_path: Path) -> None:
    """A multiple-choice task of which the model's own choice is known."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask

    model, adapter = both
    choices = ["w1", "w2", "w3", "w4"]
    prompts = [" ".join(item.prompt.split()[:9]) for item in scored.random_items(12)]
    best = [
        max(
            range(4),
            key=lambda n: likelihood(model, scored.ids_of(p), [scored.ids_of(choices[n])[1]])[0],
        )
        for p in prompts
    ]
    gold = [n if i % 3 else (n + 1) % 4 for i, n in enumerate(best)]
    documents = [{"prompt": p, "gold": g} for p, g in zip(prompts, gold, strict=True)]

    class Local(ConfigurableTask):
        def download(self, *_: Any, **__: Any) -> None:
            from datasets import Dataset, DatasetDict

            self.dataset = DatasetDict({"test": Dataset.from_list(documents)})

    task = Local(
        config={
            "task": "local",
            "dataset_path": "local",
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": choices,
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    )
    found = lm_eval.simple_evaluate(model=adapter, tasks=[task], bootstrap_iters=0)
    assert found is not None
    assert found["results"]["local"]["acc,none"] == pytest.approx(8 / 12)


def test_the_name_is_registered() -> None:
    from lm_eval.api.registry import get_model

    from effc.lm_eval import EffcLM

    assert get_model("effc") is EffcLM
