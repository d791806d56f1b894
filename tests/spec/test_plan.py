"""The plan: rules matched to sites, without a model."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from effc.diagnostics import ExitCode, NoMatchError
from effc.spec.parse import parse_policy
from effc.spec.plan import Plan, make_plan
from effc.spec.schema import MethodTable
from tests.conftest import Golden

KINDS = ("linear", "experts", "embedding")


@dataclass(frozen=True)
class Place:
    """A site as the compiler finds them."""

    kind: str
    name: str
    layer: int | None
    weight: str | None
    params: int = 4096
    layers: int = 4
    stage: str = "forward"
    heads: int | None = None
    kv_heads: int | None = None
    width: int = 64
    modality: str = "text"
    bits: int | None = None

    @property
    def node(self) -> str:
        return self.name.replace(".", "_")


SITES = [
    Place("embedding", "tokens", None, "tokens.weight"),
    *(
        place
        for i in range(4)
        for place in (
            Place("norm", f"layers.{i}.norm", i, f"layers.{i}.norm.weight", params=64),
            Place("linear", f"layers.{i}.up", i, f"layers.{i}.up.weight"),
            Place("linear", f"layers.{i}.down", i, f"layers.{i}.down.weight"),
        )
    ),
    Place("linear", "head", None, "tokens.weight"),
]


def rule(where: str, options: str = "", method: str = "rtn") -> str:
    return f"[[quantize]]\nwhere = '{where}'\nmethod = \"{method}\"\n{options}\n"


def planned(methods: MethodTable, *rules: str, sites: list[Place] = SITES) -> Plan:
    text = "version = 1\n" + "".join(rules)
    policy = parse_policy(text, file="policy.toml", methods=methods)
    return make_plan(policy, sites, {"quantize": KINDS})


def chosen(plan: Plan) -> dict[str, int]:
    return {step.site.name: step.rule for step in plan.steps}


def test_steps_are_the_served_sites_in_order(methods: MethodTable) -> None:
    plan = planned(methods, rule("all", "bits = 8"))
    served = [site for site in SITES if site.kind in KINDS]
    assert [step.site for step in plan.steps] == served
    assert {(s.table, s.method, dict(s.options)["bits"]) for s in plan.steps} == {
        ("quantize", "rtn", 8)
    }
    assert plan.skipped == tuple(
        (f"layers.{i}.norm", "quantize does not serve sites of kind norm") for i in range(4)
    )
    assert plan.notes == ()


def test_later_rule_wins_and_says_so(methods: MethodTable) -> None:
    plan = planned(
        methods,
        rule("linear or embedding"),
        rule('name("*.up")', "bits = 8"),
        rule("layer == 0 and linear", "group = 64"),
    )
    expected = {site.name: 0 for site in SITES if site.kind in KINDS}
    expected |= {f"layers.{i}.up": 1 for i in range(4)}
    expected |= {"layers.0.up": 2, "layers.0.down": 2}
    assert chosen(plan) == expected
    assert plan.notes == (
        "[[quantize]] rule 2 overrides rule 1 at 4 sites",
        "[[quantize]] rule 3 overrides rule 2 at 1 sites",
        "[[quantize]] rule 3 overrides rule 1 at 1 sites",
    )


UNTIED = "weight 'tokens.weight' is shared by tokens, head and comes apart: one copy each"


@pytest.mark.parametrize(
    ("rules", "apart"),
    (
        ((rule("linear"),), True),
        ((rule("embedding"),), True),
        ((rule("linear or embedding"),), False),
        ((rule("layer == 1"),), False),
        ((rule("linear"), rule("embedding", "bits = 8")), True),
        ((rule("linear"), rule("embedding")), False),
        (
            (rule("linear", "bits = 8\ngroup = 64"), rule("embedding", "group = 64\nbits = 8")),
            False,
        ),
        ((rule("all"), rule('name("head")')), False),
        ((rule("linear or embedding"), rule('name("head")', "samples = 2", "calibrated")), True),
    ),
)
def test_shared_weight_comes_apart_only_when_treated_differently(
    rules: tuple[str, ...], apart: bool, methods: MethodTable
) -> None:
    assert (UNTIED in planned(methods, *rules).notes) == apart


@pytest.mark.parametrize(
    "where",
    ("experts", "linear and layer == 7", "linear and params > 4096", "norm", 'name("*.gate")'),
    ids=("kind", "layer", "params", "not-served", "name"),
)
def test_rule_without_a_site(where: str, methods: MethodTable, golden: Golden) -> None:
    with pytest.raises(NoMatchError) as caught:
        planned(methods, rule("linear"), rule(where))
    assert caught.value.code == "E0401"
    assert caught.value.exit_code == ExitCode.NO_MATCH == 4
    golden.check(str(caught.value))


def test_model_without_sites(methods: MethodTable) -> None:
    with pytest.raises(NoMatchError, match="matches none of 0 sites; the model has no sites"):
        planned(methods, rule("linear"), sites=[])


def test_optional_rule_may_match_nothing(methods: MethodTable) -> None:
    plan = planned(
        methods, rule("experts", "optional = true"), rule("embedding", "optional = true")
    )
    assert list(chosen(plan)) == ["tokens"]
    assert plan.notes[0].startswith("policy.toml:3:")
    assert plan.notes[0].endswith("it is optional")
    assert 'where = "experts" matches nothing' in plan.notes[0]


def test_no_rules_no_plan(methods: MethodTable) -> None:
    assert planned(methods) == Plan()


def test_weights_that_came_quantized_are_left_alone(methods: MethodTable) -> None:
    packed = Place("linear", "up", 0, "up.codes", bits=4)
    sites = [packed, Place("linear", "down", 0, "down.weight")]
    plan = planned(methods, rule("linear"), sites=sites)
    assert chosen(plan) == {"down": 0}
    assert plan.skipped == (("up", "its weight is quantized already, 4 bits"),)
    with pytest.raises(NoMatchError, match=r"quantized already, 4 bits \(up\)"):
        planned(methods, rule("linear"), sites=[packed])
