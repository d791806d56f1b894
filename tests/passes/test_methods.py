"""What every registered method must keep, checked for all of them from the registry."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from effc.diagnostics import PassError
from effc.kernels.paged.formats import page_format
from effc.passes import registry
from effc.passes.kv_compression.method import StoreMethod
from effc.passes.quantization.method import QuantizationMethod
from effc.spec.parse import dump_policy, load_policy, parse_policy
from effc.spec.schema import MethodInfo

ROOT = Path(__file__).parents[2]
METHODS = [
    (table, name, where)
    for table, methods in registry.METHODS.items()
    for name, where in methods.items()
]
BASES = {"quantize": QuantizationMethod, "store": StoreMethod}
EVERY_METHOD = pytest.mark.parametrize(
    ("table", "name", "where"), METHODS, ids=lambda value: str(value).rpartition(".")[2]
)


def info(table: str, name: str) -> MethodInfo:
    return registry.method_infos()[table][name]


@EVERY_METHOD
def test_method_is_a_frozen_dataclass_of_its_table(table: str, name: str, where: str) -> None:
    cls = registry.locate(where)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert (cls.kind, cls.name) == (table, name)
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)
    assert issubclass(cls, BASES[table])
    assert hash(cls()) == hash(cls())


@EVERY_METHOD
def test_method_is_described(table: str, name: str, where: str) -> None:
    described = info(table, name)
    assert described.summary and not described.summary.endswith(".")
    assert described.paper.startswith("https://")
    assert all(option.help for option in described.options)
    defaults = {option.name: option.default for option in described.options}
    assert registry.method(table, name)() == registry.method(table, name)(**defaults)


@EVERY_METHOD
def test_method_loads_without_torch(table: str, name: str, where: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from effc.passes.registry import locate, method_infos\n"
        f"locate({where!r})(); method_infos()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@EVERY_METHOD
def test_every_option_survives_the_policy_text(table: str, name: str, where: str) -> None:
    described = info(table, name)
    variants = [{}] + [
        {option.name: value} for option in described.options for value in _values(option.type)
    ]
    for options in variants:
        choice = {"method": name, **options}
        rules = {"kv": [{"where": "all", "store": choice}]}
        if table != "store":
            rules = {table: [{"where": "all"} | choice]}
        policy = load_policy({"version": 1, **rules}, registry.method_infos())
        again = parse_policy(dump_policy(policy), methods=registry.method_infos())
        assert again == policy
        ((rule,),) = (getattr(again, table) for table in rules)
        read = rule.choices()[table]
        assert registry.method(table, name)(**read.options) == registry.method(table, name)(
            **options
        )


def _values(annotation: str) -> list[object]:
    """Every literal that a type names, and both truth values."""
    literals = re.findall(r"Literal\[([^\]]*)\]", annotation)
    values = [eval(item) for part in literals for item in part.split(", ")]  # noqa: S307
    return values + ([True, False] if re.search(r"\bbool\b", annotation) else [])


QUANTIZE_METHODS = pytest.mark.parametrize(
    ("table", "name", "where"), [m for m in METHODS if m[0] == "quantize"], ids=lambda v: str(v)
)


@QUANTIZE_METHODS
@pytest.mark.parametrize("shape", ((8, 64), (3, 5, 40), (1, 1)), ids=str)
def test_bytes_are_those_of_the_planes(
    shape: tuple[int, ...], table: str, name: str, where: str
) -> None:
    method = registry.method(table, name)()
    planes = method.quantize(torch.randn(shape))
    specs = {plane: (tuple(t.shape), t.dtype) for plane, t in planes.items()}
    assert {
        p: (tuple(sizes), dtype) for p, (sizes, dtype) in method.plane_specs(shape).items()
    } == specs
    assert method.bytes(shape) == sum(t.nbytes for t in planes.values())


@pytest.mark.parametrize("name", registry.METHODS["store"])
def test_stores_name_page_formats(name: str) -> None:
    for form in registry.method("store", name)().formats():
        assert page_format(form).name == form


def _fake_entry_point(name: str, value: str, owner: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, value=value, dist=SimpleNamespace(name=owner))


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    """Replaces the entry points that other packages offer."""

    def offer(*points: SimpleNamespace) -> None:
        found = lambda *, group: points if group == "effc.methods" else ()  # noqa: E731
        monkeypatch.setattr(registry.metadata, "entry_points", found)
        registry.method_locations.cache_clear()
        registry.method_infos.cache_clear()

    yield offer
    monkeypatch.undo()
    registry.method_locations.cache_clear()
    registry.method_infos.cache_clear()


def test_other_packages_add_methods(entry_points) -> None:  # noqa: ANN001
    entry_points(_fake_entry_point("quantize.mine", "effc.passes.quantization.rtn:Rtn", "other"))
    assert set(registry.method_locations()["quantize"]) == {*registry.METHODS["quantize"], "mine"}
    assert registry.method("quantize", "mine").name == "rtn"


def test_listing_methods_imports_none_of_them(entry_points) -> None:  # noqa: ANN001
    entry_points(_fake_entry_point("quantize.mine", "no_such_module:Mine", "other"))
    assert registry.method_locations()["quantize"]["mine"] == "no_such_module:Mine"
    infos = registry.method_infos()["quantize"]
    assert "mine" in infos and infos["rtn"].name == "rtn"
    with pytest.raises(
        PassError, match=r"E0413.*'mine' of \[\[quantize\]\] cannot be loaded from no_such"
    ):
        infos["mine"]


@pytest.mark.parametrize(
    ("points", "owners"),
    (
        (("quantize.rtn", "other"), "'quantize.rtn' is offered by both effc and other"),
        (("quantize.mine", "one"), "'quantize.mine' is offered by both one and two"),
    ),
)
def test_name_offered_twice_names_both_owners(
    points: tuple[str, str],
    owners: str,
    entry_points,  # noqa: ANN001
) -> None:
    name, owner = points
    entry_points(_fake_entry_point(name, "a:A", owner), _fake_entry_point(name, "b:B", "two"))
    with pytest.raises(PassError, match=f"E0403.*{owners}"):
        registry.method_locations()
