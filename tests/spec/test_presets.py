"""The presets: ordinary policies, alone and one after the other."""

from __future__ import annotations

import itertools

import pytest

from effc.diagnostics import PolicyError
from effc.passes.registry import method_infos
from effc.spec import presets
from effc.spec.parse import dump_policy, load_policy, parse_policy
from effc.spec.schema import Policy, QualitySpec


def rules(policy: Policy) -> int:
    return sum(map(len, (policy.quantize, policy.kv, policy.tokens)))


@pytest.mark.parametrize("name", presets.names())
def test_preset_is_a_policy(name: str) -> None:
    policy = load_policy(presets.path(name), method_infos())
    assert policy.text.startswith("# ")
    assert policy == load_policy(None, method_infos(), presets=[name])
    assert rules(policy) or policy.quality is not None


@pytest.mark.parametrize("pair", [*itertools.permutations(presets.names(), 2)], ids="-".join)
def test_presets_combine_in_any_order(pair: tuple[str, str]) -> None:
    both = load_policy(None, method_infos(), presets=pair)
    apart = [load_policy(None, method_infos(), presets=[name]) for name in pair]
    assert rules(both) == sum(map(rules, apart))
    assert both.quality == next((p.quality for p in reversed(apart) if p.quality), None)
    assert parse_policy(both.text, methods=method_infos()) == both


@pytest.mark.parametrize(("name", "bits"), [("int4", 4), ("int8", 8)])
def test_plain_presets(name: str, bits: int) -> None:
    (rule,) = load_policy(None, method_infos(), presets=[name]).quantize
    assert str(rule.where) == "linear or embedding"
    assert rule.options["bits"] == bits


def test_balanced_spares_the_outer_layers() -> None:
    inner, outer = load_policy(None, method_infos(), presets=["balanced"]).quantize
    assert (inner.options["bits"], outer.options["bits"]) == (4, 8)
    assert str(outer.where) == "linear and (layer == 0 or layer == -1)"


def test_gated_sets_bounds_and_nothing_else() -> None:
    policy = load_policy(None, method_infos(), presets=["gated"])
    assert policy.quality is not None
    assert policy.quality.bounds() == {
        "max_kl": 0.05,
        "max_perplexity_ratio": 1.05,
        "min_top1": 0.9,
    }
    assert policy == Policy(quality=QualitySpec(None, 2048, 0.05, 1.05, 0.9))
    assert dump_policy(policy).count("[") == 1


def test_unknown_preset() -> None:
    with pytest.raises(PolicyError) as caught:
        presets.path("int3")
    allowed = ", ".join(presets.names())
    assert str(caught.value) == (
        "--preset int3: error[E0210]: there is no preset 'int3'\n"
        f"help: did you mean 'int8'? allowed: {allowed}"
    )
