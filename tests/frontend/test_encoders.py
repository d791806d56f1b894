"""Which folders hold encoders, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from effc.diagnostics import ModelError
from effc.frontend.huggingface.encoder import encoder_class
from effc.frontend.huggingface.frontend import HuggingFaceFrontend
from tests.e2e.encoders import ENCODERS, SENTENCE_DECODER


def chosen(folder: Path, model_type: str, *architectures: str) -> str | None:
    """The class for a configuration of that type, None for a decoder."""
    config = transformers.AutoConfig.for_model(model_type)
    config.architectures = list(architectures) or None
    cls = encoder_class(config, folder)
    return cls and cls.__name__


@pytest.mark.parametrize(
    ("model_type", "architectures", "expected"),
    (
        ("bert", ("BertModel",), "BertModel"),
        ("bert", ("BertForMaskedLM",), "BertForMaskedLM"),
        ("bert", ("BertLMHeadModel",), None),
        ("bert", (), None),
        ("bert", ("MyModel", "BertModel"), "BertModel"),
        ("bert", ("torch", "_LazyModule", "PretrainedConfig", "a.b"), None),
        ("mpnet", (), "MPNetModel"),
        ("t5", ("T5EncoderModel",), "T5EncoderModel"),
        ("llama", ("LlamaForCausalLM",), None),
        ("llama", ("LlamaModel",), "LlamaModel"),
        ("bart", ("BartForCausalLM",), None),
    ),
)
def test_architecture_decides(
    model_type: str, architectures: tuple[str, ...], expected: str | None, tmp_path: Path
) -> None:
    assert chosen(tmp_path, model_type, *architectures) == expected


@pytest.mark.parametrize(
    ("model_type", "architecture", "expected"),
    (
        ("bert", "BertForMaskedLM", "BertModel"),
        ("qwen3", "Qwen3ForCausalLM", "Qwen3Model"),
        ("t5", "T5EncoderModel", "T5EncoderModel"),
    ),
)
def test_sentence_folder_holds_the_base_model(
    model_type: str, architecture: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "modules.json").write_text("[]")
    assert chosen(tmp_path, model_type, architecture) == expected


@pytest.mark.parametrize(
    ("model_type", "architecture", "message"),
    (
        ("t5", "T5ForConditionalGeneration", "T5ForConditionalGeneration is an encoder with a"),
        ("bart", "BartModel", "BartModel is an encoder with a decoder"),
        ("vit", "ViTModel", "ViTModel takes pixel_values; effc reads encoders of text alone"),
        ("clip", "CLIPModel", "CLIPModel takes pixel_values"),
        ("layoutlm", "LayoutLMModel", "LayoutLMModel takes bbox"),
    ),
)
def test_other_models_are_refused(
    model_type: str, architecture: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        chosen(tmp_path, model_type, architecture)
    assert caught.value.code == "E0302"


def test_files_of_a_sentence_folder_are_carried_along(tmp_path: Path) -> None:
    SENTENCE_DECODER.save(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text("{}")
    program = HuggingFaceFrontend().load(tmp_path)
    assert {"config.json", "modules.json", "1_Pooling/config.json"} <= set(program.info.files)


@pytest.mark.parametrize("text", ("no JSON", '{"idx": 0}', '[{"path": ""}]', "[3]", "7"))
def test_damaged_modules_are_refused(text: str, tmp_path: Path) -> None:
    ENCODERS[0].save(tmp_path)
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ModelError, match="modules.json is no list of modules") as caught:
        HuggingFaceFrontend().load(tmp_path)
    assert caught.value.code == "E0301"


def test_inputs_and_longest_text_are_known(tmp_path: Path) -> None:
    roberta = next(encoder for encoder in ENCODERS if encoder.cls == "RobertaModel")
    roberta.save(tmp_path)
    program = HuggingFaceFrontend().load(tmp_path, dtype=torch.float32)
    stage = program.stages["forward"]
    assert [spec.name for spec in stage.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {spec.shape for spec in stage.inputs} == {("B", "T")}
    assert stage.outputs == ("last_hidden_state", "pooler_output")
    # The table has 66 rows, of which the first two are never reached.
    assert program.info.context == 64
