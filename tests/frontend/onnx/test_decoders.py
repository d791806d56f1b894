"""Decoders from other exporters arrive at the sites and the cache of their checkpoints."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import transformers

import effc
from effc.canonical import canonical_program
from effc.frontend.onnx.interface import Interface, decoder_interface
from effc.frontend.onnx.reader import read_model
from effc.ir.sites import Site, find_sites
from effc.spec.schema import Policy
from examples.onnx_exports.loops import Decoder

FIXTURES = Path(__file__).parents[2] / "fixtures" / "onnx"
DECODERS = (
    "optimum_llama",
    "optimum_tiny_gpt2",
    "genai_llama_fp32",
    "genai_tiny_phi3_fp32",
    "genai_tiny_gemma2_int4",
    "genai_qwen2_int4",
)
NEW = 8


@pytest.fixture(scope="module", params=DECODERS)
def file(request: pytest.FixtureRequest) -> Path:
    return FIXTURES / request.param / "model.onnx"


def prompts() -> torch.Tensor:
    return torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(4))


def test_logits_and_tokens_are_those_of_onnxruntime(file: Path) -> None:
    ids = prompts()
    decoder = Decoder(file)
    expected = torch.from_numpy(decoder.step(ids.numpy())[0])
    fast = effc.optimize(onnx.load(file))
    error = (fast(ids).logits - expected).abs().amax(-1)
    bound = torch.maximum(1e-3 * expected.abs().amax(-1), 2 * _own_spread(decoder, ids, expected))
    assert bool((error <= bound).all())
    tokens = torch.from_numpy(decoder.generate(ids.numpy(), NEW))
    assert torch.equal(fast.generate(ids, max_new_tokens=NEW)[:, 9:], tokens)


def _own_spread(decoder: Decoder, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """How far onnxruntime is from itself when it is fed token by token, [B, T].

    Activations in int8 are rounded: one that lies between two steps goes to the one or the other.
    """
    cache, steps = None, []
    for t in range(ids.shape[1]):
        step, cache = decoder.step(ids[:, t : t + 1].numpy(), cache)
        steps.append(torch.from_numpy(step)[:, 0])
    return (torch.stack(steps, 1) - logits).abs().amax(-1)


def _rename(model: onnx.ModelProto) -> None:
    """Give every node, value, weight and input a name without meaning."""
    names: dict[str, str] = {}

    def fresh(name: str) -> str:
        return names.setdefault(name, f"v{len(names)}") if name else ""

    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = fresh(value.name)
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"
        node.input[:] = map(fresh, node.input)
        node.output[:] = map(fresh, node.output)
        del node.metadata_props[:]


def _facts(site: Site) -> tuple[object, ...]:
    return (site.kind, site.layer, site.shape, site.heads, site.kv_heads, site.width, site.mask)


def test_names_decide_nothing(file: Path) -> None:
    named = onnx.load(file)
    model = onnx.load(file)
    _rename(model)
    programs = [canonical_program(m, Policy())[0] for m in (named, model)]
    sites = [sorted(map(_facts, find_sites(p)), key=str) for p in programs]
    # The builder of onnxruntime-genai calls the norm behind the last layer a layer of its own.
    outside = {site for site in sites[0] if site not in sites[1] and site[0] == "norm"}
    assert len(outside) <= 1
    rest = [[s for s in found if s[0] != "norm"] for found in sites]
    assert rest[0] == rest[1]
    ids = prompts()
    renamed = effc.optimize(model).generate(ids, max_new_tokens=NEW)
    assert torch.equal(renamed, effc.optimize(named).generate(ids, max_new_tokens=NEW))


def test_roles_are_read_from_the_dataflow(file: Path) -> None:
    model = onnx.load(file)
    plain = decoder_interface(read_model(model).graph)
    assert isinstance(plain, Interface) and plain.ids == "input_ids" and plain.logits == "logits"
    assert set(plain.past) == {v.name for v in model.graph.input if v.name.startswith("past")}
    order = [value.name for value in model.graph.input]
    _rename(model)
    found = decoder_interface(read_model(model).graph)
    assert isinstance(found, Interface)
    renamed = dict(zip(order, (value.name for value in model.graph.input), strict=True))
    assert found.ids == renamed[plain.ids]
    assert found.past == {renamed[name]: axis for name, axis in plain.past.items()}
    assert found.positions == (renamed[plain.positions] if plain.positions else None)
    assert found.masks == tuple(renamed[name] for name in plain.masks)


@pytest.fixture(scope="module")
def llama() -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        max_position_embeddings=256,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def exported(llama: transformers.LlamaForCausalLM, tmp_path_factory: Any) -> Path:
    """The model as torch.onnx writes it, without a cache."""
    path = tmp_path_factory.mktemp("dynamo") / "model.onnx"
    ids = torch.zeros(2, 7, dtype=torch.long)
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("sequence")
    shape = {0: batch, 1: tokens}
    with warnings.catch_warnings():
        # PyTorch warns about its own use of what it deprecates.
        warnings.simplefilter("ignore")
        done = torch.onnx.export(
            _Masked(llama).eval(),
            (ids, torch.ones_like(ids)),
            dynamo=True,
            dynamic_shapes=(shape, shape),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            verbose=False,
        )
    assert done is not None
    done.save(path)
    return path


class _Masked(torch.nn.Module):
    def __init__(self, model: transformers.LlamaForCausalLM) -> None:
        super().__init__()
        self.wrapped = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self.wrapped(**given, use_cache=False).logits


def test_an_export_has_the_sites_of_its_checkpoint(
    llama: transformers.LlamaForCausalLM, exported: Path
) -> None:
    expected = find_sites(canonical_program(llama, Policy())[0])
    found = find_sites(canonical_program(exported, Policy())[0])
    assert [(s.name, _facts(s)) for s in found] == [(s.name, _facts(s)) for s in expected]


def test_an_export_has_the_cache_of_its_checkpoint(
    llama: transformers.LlamaForCausalLM, exported: Path
) -> None:
    expected, found = effc.optimize(llama), effc.optimize(exported)
    assert found.program.cache_sites == expected.program.cache_sites
    assert found.program.groups == expected.program.groups
    ids = prompts() % 128
    assert torch.equal(
        found.generate(ids, max_new_tokens=NEW), expected.generate(ids, max_new_tokens=NEW)
    )
