"""Small programs from small modules, and ways to run them that share no code with the runtime."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import effc.ops  # noqa: F401
from effc.frontend.torch.frontend import TorchFrontend
from effc.ir.journal import Journal
from effc.ir.manager import PassManager, Verdict
from effc.ir.passbase import Pass
from effc.ir.printer import print_program
from effc.ir.program import Program
from effc.passes import registry
from effc.runtime.executable import Executable

Inputs = dict[str, Any]


def capture(module: nn.Module, *example: torch.Tensor, dynamic_shapes: Any = None) -> Program:
    """The captured program of a module, before any pass."""
    return TorchFrontend().load(module, example_inputs=example, dynamic_shapes=dynamic_shapes)


def run_passes(program: Program, *passes: Pass) -> tuple[Journal, list[Verdict]]:
    """Run passes with the strictest verification."""
    journal = Journal()
    return journal, PassManager(passes, check=2).run(program, journal)


def canonical(module: nn.Module, *example: torch.Tensor) -> Program:
    """The program of a module after all canonical passes."""
    program = capture(module, *example)
    run_passes(program, *(registry.locate(where)() for where in registry.CANONICAL))
    return program


def run(program: Program, stage: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run a stage as users do; state that it updates in place is copied first."""
    return Executable(program)(stage, copied(inputs))


def run_text(program: Program, stage: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run what the printer shows, knowing nothing but torch and the weights."""
    namespace: dict[str, Any] = {"torch": torch, "operator": operator, "math": math}
    exec(compile(print_program(program), "<program>", "exec"), namespace)
    weights = {name: weight.load() for name, weight in program.weights.items()}
    inputs = copied(inputs)
    described = program.stages[stage]
    arguments = [inputs.get(spec.name) for spec in described.inputs]
    with torch.inference_mode():
        results = namespace[stage](weights, *arguments)
    return dict(zip(described.outputs, results, strict=True))


def copied(inputs: Mapping[str, Any]) -> Inputs:
    """Inputs whose tensors may be written to."""
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}


def decode_inputs(program: Program, ids: torch.Tensor) -> Inputs:
    """The first call of a decode stage for one sequence `ids` [1, T], all rows asked for.

    Tokens go to pages 0, 1, ... in order, so a slot's number is its token's index.
    """
    tokens, pages = ids.shape[1], -(-ids.shape[1] // program.page_size)
    inputs: Inputs = {
        "ids": ids,
        "positions": torch.arange(tokens)[None],
        "new_len": torch.tensor([tokens]),
        "logit_rows": torch.arange(tokens)[None],
        "tree_mask": None,
        "lengths": torch.tensor([0]),
    }
    for spec in program.stages["decode"].inputs:
        if spec.name.startswith("table_"):
            inputs[spec.name] = torch.arange(pages, dtype=spec.dtype)[None, None]
        elif spec.name.startswith("slots_"):
            inputs[spec.name] = torch.arange(tokens)[None, None]
        elif spec.name.startswith("index_"):
            stored = torch.full((pages * program.page_size,), -1, dtype=spec.dtype)
            stored[:tokens] = torch.arange(tokens)
            inputs[spec.name] = stored.view(pages, program.page_size)
        elif spec.name not in inputs:
            inputs[spec.name] = torch.zeros(pages, *spec.shape[1:], dtype=spec.dtype)  # type: ignore[arg-type]
    return inputs


def same_bits(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether two results are equal bit by bit, names included."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


class Decoder(nn.Module):
    """A causal language model over torch's own parts: ids and positions to logits.

    Attributes:
        window: of the second layer's attention; None sees everything.
    """

    V, W, H, H_KV, D = 23, 16, 4, 2, 4

    def __init__(self, window: int | None = None, tied: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Embedding(self.V, self.W)
        self.places = nn.Embedding(64, self.W)
        self.layers = nn.ModuleList([Layer(None), Layer(window)])
        self.norm = nn.LayerNorm(self.W)
        self.head = nn.Linear(self.W, self.V, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places(positions)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Layer(nn.Module):
    """Attention with grouped heads, then a feed-forward layer."""

    def __init__(self, window: int | None) -> None:
        super().__init__()
        w, h, h_kv, d = Decoder.W, Decoder.H, Decoder.H_KV, Decoder.D
        self.window = window
        self.q, self.k, self.v = (nn.Linear(w, n * d, bias=False) for n in (h, h_kv, h_kv))
        self.o = nn.Linear(h * d, w)
        self.mlp = nn.Sequential(nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(-1, (-1, Decoder.D)).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        y = torch.ops.effc.attention(
            q, k, v, None, True, self.window, None, Decoder.D**-0.5, None, None
        )
        x = x + self.o(y.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


def decoder(window: int | None = None, tied: bool = True) -> Decoder:
    """A decoder with fixed random weights in evaluation mode."""
    torch.manual_seed(5)
    return Decoder(window, tied).eval()


def example_ids(batch: int = 2, tokens: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and positions [B, T] for a decoder."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, Decoder.V, (batch, tokens), generator=generator)
    return ids, torch.arange(tokens).repeat(batch, 1)
