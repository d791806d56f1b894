"""Tiny encoders of many architectures, and what transformers says about ragged batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.e2e.families import VOCABULARY, enliven

CONTEXT = 64

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 1,
}
_ROBERTA = {"max_position_embeddings": CONTEXT + 2}
_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
_QWEN = {"num_key_value_heads": 2, "head_dim": 16}

# Tokens of each row, and whether padding stands at the left: ragged, alone, as long as can be.
BATCHES = (((13, 6, 1), False), ((9, 4), True), ((1,), False), ((CONTEXT, 33), False))


@dataclass(frozen=True)
class Encoder:
    """One class of the library.

    Attributes:
        cls: its name.
        options: what differs from the common tiny configuration.
        one_operator: whether attention is captured as `effc::attention`.
        files: further files of the folder, by name.
    """

    cls: str
    options: dict[str, Any] = field(default_factory=dict)
    one_operator: bool = True
    files: dict[str, str] = field(default_factory=dict)

    def build(self) -> Any:
        """A random model of this class in evaluation mode, fp32."""
        import transformers

        cls = getattr(transformers, self.cls)
        config = cls.config_class(**{**_COMMON, **self.options})
        torch.manual_seed(0)
        return enliven(cls._from_config(config, attn_implementation="eager").float().eval())

    def save(self, folder: Path) -> Any:
        """Build, save and return the model."""
        model = self.build()
        model.save_pretrained(folder)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        return model


def batches(pad: int = 1) -> Iterator[dict[str, torch.Tensor]]:
    """`input_ids` and `attention_mask` of `BATCHES`, the same at every call."""
    generator = torch.Generator().manual_seed(3)
    for lengths, at_left in BATCHES:
        shape = (len(lengths), max(lengths))
        ids = torch.randint(3, VOCABULARY, shape, generator=generator)
        count = torch.tensor(lengths)[:, None]
        columns = torch.arange(shape[1])[None]
        mask = (columns >= shape[1] - count if at_left else columns < count).long()
        yield {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask}


def differences(
    expected: Mapping[str, torch.Tensor], found: Any, mask: torch.Tensor
) -> dict[str, float]:
    """Largest difference of each result, relative to its largest value, at real tokens."""
    result = {}
    for name, value in expected.items():
        other = getattr(found, name)
        assert other.shape == value.shape
        if value.shape[:2] == mask.shape:
            value, other = value[mask.bool()], other[mask.bool()]
        result[name] = float((value - other).abs().max() / value.abs().max())
    return result


_MODULES = """[
  {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
  {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
]"""

ENCODERS: tuple[Encoder, ...] = (
    Encoder("BertModel"),
    Encoder("DistilBertModel", {"dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4}),
    Encoder("RobertaModel", _ROBERTA),
    Encoder("MPNetModel", _ROBERTA, one_operator=False),
    Encoder("AlbertModel", {"embedding_size": 32, "inner_group_num": 2}),
    Encoder("DebertaV2Model", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                               "position_buckets": 8}, one_operator=False),
    Encoder("ModernBertModel", {"local_attention": 8, "global_attn_every_n_layers": 2}),
    Encoder("NomicBertModel"),
    Encoder("T5EncoderModel", _T5, one_operator=False),
    Encoder("BertForMaskedLM"),
    Encoder("BertForSequenceClassification", {"num_labels": 5}),
    Encoder("Qwen3Model", _QWEN),
)  # fmt: skip
"""Classes, each with the call that transformers' users make of it."""

SENTENCE_DECODER = Encoder("Qwen3ForCausalLM", _QWEN, files={"modules.json": _MODULES})
"""A decoder that a sentence-transformers folder uses as an encoder."""
