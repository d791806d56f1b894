"""`store = { method = "int8" }`: chosen layers keep their cache in 8 bits, nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import effc
from effc.diagnostics import EffcError, NoMatchError
from effc.kernels.paged.formats import page_format

MODEL = Path(__file__).parents[2] / "examples/zoo/lm/checkpoint"


def stored(where: str, **more: Any) -> dict[str, Any]:
    return {
        "target": {"dtype": "float32"},
        "kv": [{"where": where, "store": {"method": "int8"}} | more],
    }


def test_only_the_chosen_layers_change_their_format() -> None:
    model = effc.optimize(MODEL, stored("attention and layer in 1..2"))
    formats = {
        site.layer: (site.key_format, site.value_format) for site in model.program.cache_sites
    }
    assert formats == {
        0: ("fp32", "fp32"), 1: ("int8", "int8"), 2: ("int8", "int8"), 3: ("fp32", "fp32"),
    }  # fmt: skip
    assert {site.group for site in model.program.cache_sites} == {"full"}


def test_bytes_held_are_those_of_the_closed_form_and_answers_stay_close() -> None:
    plain = effc.optimize(MODEL, {"target": {"dtype": "float32"}})
    packed = effc.optimize(MODEL, stored("attention"))
    ids = torch.tensor([plain.tokenizer.encode("import os\n\n\ndef walk(path):\n").ids])
    logits = plain(ids).logits
    change = (packed(ids).logits - logits).abs().amax() / logits.abs().amax()
    assert 0 < change < 0.02
    held = [
        m.generate_result(ids, max_new_tokens=20).counters["bytes_held"] for m in (plain, packed)
    ]
    D = plain.program.cache_sites[0].key_width
    assert held[1] / held[0] == (D + 2) / (4 * D)
    assert page_format("int8").bytes_per_token(D) == D + 2


def test_it_composes_with_packed_weights_and_survives_saving(tmp_path: Path) -> None:
    policy = stored("attention") | {
        "quantize": [{"where": "linear or embedding", "method": "rtn", "bits": 8}]
    }
    model = effc.optimize(MODEL, policy)
    model.save(tmp_path / "out")
    ids = torch.tensor([[5, 9, 200, 77]])
    expected = model.generate(ids, max_new_tokens=16)
    assert torch.equal(effc.load(tmp_path / "out").generate(ids, max_new_tokens=16), expected)


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (stored("linear"), NoMatchError, "kv does not serve sites of kind linear"),
        (stored("attention and layer == 9"), NoMatchError, "nearest miss.*layer is 0"),
        (stored("attention", method="snap"), EffcError, "E0212.*no method is registered"),
    ],
)
def test_rules_that_cannot_act_are_refused(
    policy: dict[str, Any], error: type[EffcError], message: str
) -> None:
    with pytest.raises(error, match=message):
        effc.optimize(MODEL, policy)
