"""`.pt2` files compute what the compiled model computes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effc
from effc.diagnostics import ArtifactError, ExportError
from effc.export import dense
from effc.export.base import stage_files
from effc.export.formats import export_program, exporter
from effc.export.pt2 import DESCRIPTION
from effc.export.stage_module import stage_module, updated_planes
from effc.ir.program import InputSpec, ScheduleEntry
from tests.e2e.families import FAMILIES
from tests.export.dense_steps import Decoding, greedy
from tests.programs import decoder, example_ids

FOUR_BIT = {"where": "linear or embedding", "method": "rtn", "bits": 4}
INT8 = {"where": "attention", "store": {"method": "int8"}}


def exported(program: Any, path: Path) -> Callable[..., Any]:
    export_program(program, path, "pt2")
    return torch.export.load(path).module()


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> effc.CompiledModel:
    """A quantized model as it is read back, without types on its nodes."""
    out = tmp_path_factory.mktemp("pt2") / "out"
    effc.optimize(tiny_llama, {"version": 1, "quantize": [FOUR_BIT]}).save(out)
    return effc.load(out)


@pytest.fixture(scope="module")
def tiny_pt2(tiny: effc.CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    export_program(tiny.program, path, "pt2")
    return path


@pytest.mark.parametrize(
    ("family", "policy"),
    (("Llama", {"kv": [INT8]}), ("Gemma2", {}), ("Mistral", {"quantize": [FOUR_BIT]})),
)
def test_greedy_tokens_are_those_of_the_engine(
    family: str, policy: dict[str, Any], tmp_path: Path
) -> None:
    """Windows, soft caps, planes of codes and scales; the answer is longer than the window."""
    next(f for f in FAMILIES if f.name == family).save(tmp_path / "model")
    fast = effc.optimize(tmp_path / "model", {"version": 1, **policy})
    ids = torch.randint(5, 199, (2, 21))
    expected = fast.generate(ids, max_new_tokens=9)
    call = exported(fast.program, tmp_path / "m.pt2")
    assert torch.equal(greedy(call, fast.program, ids, 9), expected)


def test_ragged_prompts_in_one_call(tiny: effc.CompiledModel, tiny_pt2: Path) -> None:
    call = torch.export.load(tiny_pt2).module()
    prompts = [[5, 17, 3, 101, 9, 60], [42], [7, 8, 9]]
    together = Decoding(call, tiny.program, 3)
    alone = [Decoding(call, tiny.program, 1) for _ in prompts]
    for step in (prompts, [[1], [2, 3], [4]], [[9], [9], [9]]):
        apart = torch.cat([d.feed([row]) for d, row in zip(alone, step, strict=True)])
        torch.testing.assert_close(together.feed(step), apart, rtol=0, atol=1e-5)
    assert together.lengths.tolist() == [8, 4, 5]


def test_a_shorter_length_takes_tokens_back(tiny: effc.CompiledModel, tiny_pt2: Path) -> None:
    call = torch.export.load(tiny_pt2).module()
    straight, corrected = (Decoding(call, tiny.program, 1) for _ in range(2))
    straight.feed([[5, 17, 3]])
    corrected.feed([[5, 17, 3, 99, 98]])
    corrected.lengths -= 2
    assert torch.equal(straight.feed([[4]]), corrected.feed([[4]]))


def test_a_token_past_the_capacity_fails(tiny: effc.CompiledModel, tiny_pt2: Path) -> None:
    """Its slot would be the first of the next sequence."""
    call = torch.export.load(tiny_pt2).module()
    full = Decoding(call, tiny.program, 2, capacity=4)
    full.feed([[1, 2, 3, 4], [5]])
    with pytest.raises(IndexError):
        full.feed([[6], [7]])


def test_the_graph_is_functional_again(tiny: effc.CompiledModel) -> None:
    stage = tiny.program.stages["decode"]
    before = str(stage.graph)
    module = stage_module(tiny.program, stage)
    assert "cache_write_.default" not in str(module.graph)
    assert "cache_write_.default" in before
    assert before == str(stage.graph)
    assert updated_planes(stage) == ["k0", "v0", "k1", "v1"]
    assert len(module.graph.output_node().args[0]) == 2 + 4  # type: ignore[arg-type]


def test_every_weight_is_held_once(tiny: effc.CompiledModel, tiny_pt2: Path) -> None:
    program = torch.export.load(tiny_pt2)
    names = {name.removeprefix("model.") for name in program.state_dict}
    assert names == tiny.program.read_weights()
    held = sum(t.nbytes for t in program.state_dict.values())
    assert held == tiny.program.weights.nbytes


def test_a_weight_beside_its_packed_copy(tiny_llama: Path, tmp_path: Path) -> None:
    rule = {"where": 'name("lm_head")', "method": "rtn"}
    fast = effc.optimize(tiny_llama, {"version": 1, "quantize": [rule]})
    call = exported(fast.program, tmp_path / "m.pt2")
    ids = torch.tensor([[5, 17, 3]])
    assert torch.equal(greedy(call, fast.program, ids, 5), fast.generate(ids, max_new_tokens=5))


def test_the_file_describes_itself(tiny: effc.CompiledModel, tiny_pt2: Path) -> None:
    files = {DESCRIPTION: ""}
    torch.export.load(tiny_pt2, extra_files=files)
    data = json.loads(files[DESCRIPTION])
    assert data["outputs"] == ["logits", "lengths", "k0", "v0", "k1", "v1"]
    assert data["inputs"][0]["name"] == "input_ids"
    planes = {i["name"]: i["shape"] for i in data["inputs"] if i["role"] == "state"}
    assert planes["k0"] == ["B", 2, "S", 16]
    assert (data["stage"], data["context"]) == ("decode", tiny.program.info.context)


FRESH = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"transformers", "lark", "rich", "typer"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import torch
import effc.ops
call = torch.export.load(sys.argv[1]).module()
n, S = 3, 8
past = {f"{kind}{i}": torch.zeros(1, 2, S, 16) for i in range(2) for kind in "kv"}
logits, lengths, past = call(
    input_ids=torch.tensor([[5, 17, 3]]), positions=torch.arange(n)[None],
    new_len=torch.tensor([n]), logit_rows=torch.tensor([[n - 1]]),
    lengths=torch.tensor([0]), past=past,
)
print(logits.argmax().item(), lengths.item())
"""


def test_a_fresh_process_needs_the_operators_only(tiny: effc.CompiledModel, tiny_pt2: Path) -> None:
    command = [sys.executable, "-c", FRESH, str(tiny_pt2)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    best = tiny(torch.tensor([[5, 17, 3]])).logits[0, -1].argmax().item()
    assert ran.stdout.split() == [str(best), "3"]


class Pair(nn.Module):
    """Two inputs, and results in the form asked for."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.inner = nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        a, b = self.inner(x) + y, x.sum(-1)
        return {"tensor": a, "tuple": (a, b), "dict": {"scores": a, "total": b}}[self.form]


@pytest.mark.parametrize("form", ("tensor", "tuple", "dict"))
def test_a_module_returns_what_it_did(form: str, tmp_path: Path) -> None:
    module = Pair(form).eval()
    example = (torch.randn(3, 16), torch.randn(3, 4))
    fast = effc.optimize(module, example_inputs=example)
    call = exported(fast.program, tmp_path / "m.pt2")
    x, y = torch.randn(1, 16), torch.randn(1, 4)
    torch.testing.assert_close(call(x=x, y=y), module(x, y))


def test_an_optional_input_is_left_out(tmp_path: Path) -> None:
    """The stage runs as it does without it."""
    module = nn.Linear(16, 4).eval()
    fast = effc.optimize(module, example_inputs=(torch.randn(3, 16),))
    stage = fast.program.stages["forward"]
    with stage.graph.inserting_before(next(iter(stage.graph.nodes))):
        stage.graph.placeholder("mask")
    mask = InputSpec("mask", torch.bool, ("d0",), optional=True)
    stage.inputs = (mask, *stage.inputs)
    call = exported(fast.program, tmp_path / "m.pt2")
    x = torch.randn(2, 16)
    torch.testing.assert_close(call(mask=None, input_=x), module(x))


class Places(nn.Module):
    """As many tokens as there are places."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.places[: x.shape[1]]


def test_sizes_within_bounds_stay_dynamic(tmp_path: Path) -> None:
    T = torch.export.Dim("T", min=1, max=32)
    module = Places().eval()
    fast = effc.optimize(
        module, example_inputs=(torch.randn(2, 5, 4),), dynamic_shapes={"x": {1: T}}
    )
    call = exported(fast.program, tmp_path / "m.pt2")
    for size in (1, 7, 32):
        x = torch.randn(2, size, 4)
        torch.testing.assert_close(call(x=x), module(x))


def test_nothing_is_overwritten(tiny: effc.CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_text("mine")
    with pytest.raises(ArtifactError, match="E0102.*exists already"):
        export_program(tiny.program, path, "pt2")
    assert path.read_text() == "mine"
    with pytest.raises(ArtifactError, match="E0102.*is a folder"):
        export_program(tiny.program, tmp_path, "pt2", force=True)
    with pytest.raises(ArtifactError, match="E0103.*does not exist"):
        export_program(tiny.program, tmp_path / "no" / "m.pt2", "pt2")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]


def test_a_failed_export_leaves_what_was_there(
    tiny: effc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.pt2"
    path.write_text("mine")

    def full(program: object, file: Path, **_: object) -> None:
        Path(file).write_text("half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/1: disk full")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(ArtifactError, match="E0103"):
        export_program(tiny.program, path, "pt2", force=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"m.pt2": "mine"}


def test_forms_that_do_not_exist() -> None:
    with pytest.raises(ExportError, match="(?s)E0801.*no format 'pt'.*did you mean 'pt2'"):
        exporter("pt")
    with pytest.raises(ExportError, match="E0801.*no option 'dialect'"):
        exporter("pt2", dialect="torch")


def test_a_cache_that_loses_tokens_is_refused(tmp_path: Path) -> None:
    """Eviction that attention does not know of cannot be left out."""
    fast = effc.optimize(decoder(4), example_inputs=example_ids())
    arguments = {"group": "window4", "tokens": 8}
    schedule = (ScheduleEntry("every", "evict_window", arguments),)
    with pytest.raises(ExportError, match="E0801.*dense cache.*'evict_window'"):
        export_program(replace(fast.program, schedule=schedule), tmp_path / "m.pt2", "pt2")
    assert not list(tmp_path.iterdir())


def test_bytes_of_a_slot(tiny: effc.CompiledModel) -> None:
    past = dense.empty_past(tiny.program, 3, 5)
    assert sum(p.nbytes for p in past.values()) == 3 * 5 * dense.bytes_per_slot(tiny.program)


def test_one_file_per_stage(tiny: effc.CompiledModel) -> None:
    path = Path("a/m.pt2")
    assert stage_files(tiny.program, path) == {"decode": path}
    decode = tiny.program.stages["decode"]
    two = replace(tiny.program, stages=dict.fromkeys(("encode", "decode"), decode))
    assert stage_files(two, path) == {
        "encode": Path("a/m-encode.pt2"),
        "decode": Path("a/m-decode.pt2"),
    }
