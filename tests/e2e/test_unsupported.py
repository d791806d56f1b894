"""Models that cannot be continued with a cache are refused, each with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

import effc
from tests.e2e.check import REFUSED, check
from tests.e2e.families import Family
from tests.e2e.variants import variants

REFUSALS = {
    "Mamba": "E0302: MambaForCausalLM takes no position_ids: it is recurrent",
    "Bloom": "E0302: BloomForCausalLM takes no position_ids",
    "Roberta": "E0302: RobertaForCausalLM counts positions from its padding token on",
    "GPTJ": "E0302: GPTJForCausalLM chooses among attention classes of its own",
    "CodeGen": "E0308: the model computes with its attention mask",
    "Llama rope dynamic": "E0302: rope scaling 'dynamic' changes all angles",
    "Llama rope longrope": "E0302: rope scaling 'longrope' changes all angles",
    "Bert not a decoder": "E0405: attention is not causal",
    "Lfm2": "E0405: aten.conv1d.default is not known to keep tokens apart",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_model_is_refused_with_its_reason(name: str) -> None:
    variant = next(v for v in variants() if v.name == name)
    verdict = check(variant)
    assert verdict.result == REFUSED
    assert verdict.reason.startswith(REFUSALS[name])


def test_a_model_in_memory_is_refused_like_a_folder(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = Family("Llama", {"rope_parameters": rope}).save(tmp_path)
    for source in (model, str(tmp_path)):
        with pytest.raises(effc.EffcError, match="'dynamic' changes all angles") as caught:
            effc.optimize(source)
        assert caught.value.code == "E0302"
