"""Sites: what a policy can name in a program."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from effc.ir.program import Program
from effc.ir.sites import Site, find_sites, node_of
from tests.e2e.families import Family
from tests.programs import canonical, capture, decoder, example_ids


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return find_sites(canonical(decoder(window=3), *example_ids()))


def of_kind(sites: list[Site], kind: str) -> list[Site]:
    return [site for site in sites if site.kind == kind]


def test_every_weight_of_a_decoder_is_a_site(sites: list[Site]) -> None:
    linears = ["q", "k", "v", "o", "mlp.0", "mlp.2"]
    expected = [f"layers.{i}.{name}" for i in range(2) for name in linears] + ["head"]
    assert [site.name for site in of_kind(sites, "linear")] == expected
    assert [site.name for site in of_kind(sites, "embedding")] == ["tokens", "places"]
    assert [site.name for site in of_kind(sites, "norm")] == ["norm"]
    assert {site.layers for site in sites} == {2}
    assert {site.stage for site in sites} == {"forward"}


def test_sizes_of_a_linear(sites: list[Site]) -> None:
    site = next(site for site in sites if site.name == "layers.1.mlp.0")
    assert (site.layer, site.shape, site.params, site.width) == (1, (32, 16), 512, 32)
    assert site.weight == "layers.1.mlp.0.weight"
    assert site.modality == "text"


def test_attention_has_heads_and_a_mask_in_words(sites: list[Site]) -> None:
    full, near = of_kind(sites, "attention")
    assert (full.name, full.heads, full.kv_heads, full.width) == ("layers.0", 4, 2, 4)
    assert (full.mask, near.mask) == ("causal", "causal, window 3")
    assert full.weight is None and full.params is None


def test_sites_of_one_parameter_share_a_weight(sites: list[Site]) -> None:
    shared = [site.name for site in sites if site.weight == "tokens.weight"]
    assert shared == ["tokens", "head"]
    untied = find_sites(capture(decoder(tied=False), *example_ids()))
    assert {s.name: s.weight for s in untied}["head"] == "head.weight"


def test_node_of_a_site_reads_its_weight() -> None:
    program = canonical(decoder(), *example_ids())
    for site in find_sites(program):
        node = node_of(program, site)
        read = {str(n.target) for n in node.all_input_nodes if n.op == "get_attr"}
        assert site.weight is None or site.weight in read
        assert node.name == site.node


class Other(nn.Module):
    """Convolutions of all ranks, experts in both layouts, masks of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = (
            c(2, 3, 3, padding="same" if c is nn.Conv1d else 1)
            for c in (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        )
        self.wide = nn.Parameter(torch.ones(2, 5, 8))
        self.tall = nn.Parameter(torch.ones(2, 5, 8))

    def forward(self, x, rows, ids, q):  # noqa: ANN001, ANN201
        experts = torch.ops.effc.grouped_linear(rows, self.wide, ids, None, False)
        back = torch.ops.effc.grouped_linear(experts, self.tall, ids, None, True)
        attend = torch.ops.effc.attention
        masks = (
            attend(q, q, q, None, False, None, None, 1.0, None, None),
            attend(q, q, q, None, True, None, 4, 1.0, None, None),
            attend(q, q, q, torch.ones(3, 3, dtype=torch.bool), False, None, None, 1.0, None, None),
        )
        return self.c1(x[:, :, 0, 0]), self.c2(x[:, :, 0]), self.c3(x), back, *masks


@pytest.fixture(scope="module")
def other() -> Program:
    inputs = torch.ones(2, 2, 4, 4, 4), torch.ones(3, 8), torch.zeros(3, dtype=torch.long)
    names = ("x", "rows", "ids", "q")
    shapes: dict[str, dict[int, object]] = {name: {} for name in names}
    return capture(Other(), *inputs, torch.ones(1, 2, 3, 4), dynamic_shapes=shapes)


def test_convolutions(other: Program) -> None:
    found = of_kind(find_sites(other), "conv")
    assert [(s.name, len(s.shape), s.width) for s in found] == [
        ("c1", 3, 3),
        ("c2", 4, 3),
        ("c3", 5, 3),
    ]


def test_experts_are_named_by_their_weight(other: Program) -> None:
    found = of_kind(find_sites(other), "experts")
    assert [(s.name, s.weight, s.width) for s in found] == [
        ("wide", "wide", 5),
        ("tall", "tall", 8),
    ]


def test_masks_in_words(other: Program) -> None:
    found = of_kind(find_sites(other), "attention")
    assert [s.mask for s in found] == ["full", "causal, chunks of 4", "full, dense mask"]


def test_computed_weights_are_no_sites() -> None:
    class Computed(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, w)

    shapes: dict[str, dict[int, object]] = {"x": {}, "w": {}}
    program = capture(Computed(), torch.ones(2, 4), torch.ones(3, 4), dynamic_shapes=shapes)
    assert find_sites(program) == []


def test_sites_of_a_checkpoint(tmp_path: Path) -> None:
    from effc.inspection import inspect_model

    options = {"num_hidden_layers": 2, "num_local_experts": 3, "sliding_window": 7}
    Family("Mixtral", options).save(tmp_path)
    inspected = inspect_model(tmp_path)
    found = inspected["sites"]
    kinds = {
        kind: sum(s["kind"] == kind for s in found) for kind in sorted({s["kind"] for s in found})
    }
    assert kinds == {"attention": 2, "embedding": 1, "experts": 4, "linear": 11, "norm": 5}
    assert {s["mask"] for s in found if s["kind"] == "attention"} == {"causal, window 7"}
    assert {s["shape"][0] for s in found if s["kind"] == "experts"} == {3}
    assert (inspected["vocabulary"], inspected["family"]) == (199, "mixtral")
