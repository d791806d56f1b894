"""Encoders in Hugging Face folders say what transformers says, padding included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import effc
from tests.e2e.encoders import (
    CONTEXT,
    ENCODERS,
    SENTENCE_DECODER,
    Encoder,
    batches,
    differences,
)

TOLERANCE = 1e-5
ATTENTION = "effc.attention.default"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(model: Any, compiled: effc.CompiledModel) -> None:
    """Every tensor that the library's call returns, over all batches."""
    for batch in batches():
        with torch.no_grad():
            expected = {n: v for n, v in model(**batch).items() if isinstance(v, torch.Tensor)}
        found = compiled(**batch)
        assert set(vars(found)) == set(expected)
        wrong = differences(expected, found, batch["attention_mask"])
        assert max(wrong.values()) < TOLERANCE, wrong


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.cls)
def test_results_are_those_of_the_original(encoder: Encoder, tmp_path: Path) -> None:
    model = encoder.save(tmp_path)
    compiled = effc.optimize(tmp_path)
    check(model, compiled)
    operators = {str(node.target) for _, node in compiled.program.nodes()}
    assert (ATTENTION in operators) == encoder.one_operator
    assert compiled.program.loop == "none"


@pytest.mark.parametrize("encoder", ENCODERS[:2], ids=lambda encoder: encoder.cls)
def test_the_comparison_sees_a_mask_that_is_ignored(encoder: Encoder, tmp_path: Path) -> None:
    model = encoder.save(tmp_path)
    compiled = effc.optimize(tmp_path)
    batch = next(batches())
    everything = torch.ones_like(batch["attention_mask"])
    with torch.no_grad():
        expected = model(**batch).last_hidden_state
    found = compiled(**batch | {"attention_mask": everything})
    wrong = differences({"last_hidden_state": expected}, found, batch["attention_mask"])
    assert wrong["last_hidden_state"] > 1e-2


def test_mask_and_token_types_may_be_left_out(tmp_path: Path) -> None:
    model = ENCODERS[0].save(tmp_path)
    compiled = effc.optimize(tmp_path)
    ids = torch.randint(3, 199, (2, 9))
    types = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 1]).expand(2, 9)
    for options in ({}, {"token_type_ids": types}):
        with torch.no_grad():
            expected = model(ids, **options).last_hidden_state
        found = compiled(ids, **options).last_hidden_state
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_sentence_folder_of_a_decoder_is_read_as_an_encoder(tmp_path: Path) -> None:
    SENTENCE_DECODER.save(tmp_path)
    compiled = effc.optimize(tmp_path)
    check(transformers.Qwen3Model.from_pretrained(tmp_path).eval(), compiled)
    (note,) = [note for note in compiled.program.notes if "modules.json" in note]
    assert note.endswith("says: Pooling")


def test_pooler_that_the_checkpoint_lacks_is_left_out(tmp_path: Path) -> None:
    transformers.BertModel(ENCODERS[0].build().config, add_pooling_layer=False).save_pretrained(
        tmp_path
    )
    compiled = effc.optimize(tmp_path)
    assert compiled.program.stages["forward"].outputs == ("last_hidden_state",)
    assert any("no pooler" in note for note in compiled.program.notes)


def test_reloaded_artifact_gives_the_same(tmp_path: Path) -> None:
    ENCODERS[2].save(tmp_path / "model")
    rule = {"where": "linear or embedding", "method": "rtn", "bits": 4}
    compiled = effc.optimize(tmp_path / "model", {"quantize": [rule]})
    compiled.save(tmp_path / "out")
    again = effc.load(tmp_path / "out")
    assert again.program.info.context == CONTEXT
    for batch in batches():
        expected, found = compiled(**batch), again(**batch)
        assert torch.equal(found.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize(
    ("inputs", "message"),
    (
        ({"input_ids": torch.zeros(1, CONTEXT + 1, dtype=torch.long)}, "E0701"),
        ({"input_ids": torch.tensor([[3, 199]])}, "E0702"),
        ({"input_ids": torch.zeros(1, 3)}, "E0703.*integers"),
        ({"input_ids": [[3, 4]]}, "E0703.*tensor"),
        ({"input_ids": torch.ones(2, 3).long(), "attention_mask": torch.ones(2, 4)}, "E0703"),
        ({"input_ids": torch.ones(2, 3).long(), "pixel_values": torch.ones(2, 4)}, "E0703"),
    ),
    ids=("too long", "outside", "floats", "list", "another shape", "unknown"),
)
def test_inputs_that_do_not_fit_are_refused(
    inputs: dict[str, Any], message: str, bert: effc.CompiledModel
) -> None:
    with pytest.raises(effc.EffcError, match=message):
        bert(**inputs)


def test_encoder_does_not_generate(bert: effc.CompiledModel) -> None:
    with pytest.raises(effc.EffcError, match="E0704"):
        bert.generate(torch.tensor([[3, 4]]))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> effc.CompiledModel:
    folder = tmp_path_factory.mktemp("bert")
    ENCODERS[0].save(folder)
    return effc.optimize(folder)
