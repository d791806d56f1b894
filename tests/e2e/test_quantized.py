"""Quantized models are what the scheme says: in bytes, and in numbers.

The oracle is a dozen lines of numpy that know the packed layout from its description, and
transformers' own model with the dequantized weights put in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import effc
from effc.ir.sites import find_sites
from tests.e2e.families import FAMILIES

REFERENCE = Path(__file__).parents[2] / "examples" / "zoo" / "lm" / "checkpoint"


@dataclass(frozen=True)
class Scheme:
    """One `rtn` setting."""

    bits: int
    group: int | str
    symmetric: bool

    @property
    def policy(self) -> dict[str, Any]:
        rule = {
            "where": "linear or embedding",
            "method": "rtn",
            "bits": self.bits,
            "group": self.group,
            "symmetric": self.symmetric,
            "activations": "source",
        }
        return {"target": {"dtype": "float32"}, "quantize": [rule]}

    def closed_form(self, rows: int, columns: int) -> float:
        """Bytes of a weight: b bits each, 16 per group, b more with a zero point."""
        group = columns if self.group == "row" else int(self.group)
        per_weight = self.bits + 16 / group + (0 if self.symmetric else self.bits / group)
        return rows * columns * per_weight / 8


SCHEMES = [
    Scheme(4, 32, True),
    Scheme(4, 32, False),
    Scheme(8, "row", True),
    Scheme(8, 16, False),
    Scheme(3, 32, True),
    Scheme(2, 16, False),
]


def unpack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes as numbers, from the low bits of a byte up; 3 bits in two parts, low bits first."""
    if bits == 8:
        return codes.astype(np.float64)
    if bits == 3:
        low, high = np.split(codes, [codes.shape[-1] * 2 // 3], axis=-1)
        return unpack(low, 2) + 4 * unpack(high, 1)
    shifts = np.arange(0, 8, bits)
    return ((codes[..., None] >> shifts) % 2**bits).reshape(*codes.shape[:-1], -1) * 1.0


def dequantize(planes: dict[str, np.ndarray], bits: int, columns: int) -> np.ndarray:
    """(code - zero) * scale, by group."""
    codes = unpack(planes["codes"], bits)
    scale = planes["scale"].astype(np.float64)
    groups = scale.shape[-1]
    zero = 2.0 ** (bits - 1) * np.ones_like(scale)
    if "zero" in planes:
        zero = unpack(planes["zero"], bits)[..., :groups]
    grouped = codes.reshape(*scale.shape, -1)
    return ((grouped - zero[..., None]) * scale[..., None]).reshape(codes.shape)[..., :columns]


def with_dequantized_weights(model: Any, folder: Path, bits: int) -> Any:
    """Transformers' model computing with what the artifact stores."""
    with safe_open(folder / "weights.safetensors", framework="np") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parameters = dict(model.named_parameters(remove_duplicate=False))
    replaced = 0
    for name in [n.removesuffix(".codes") for n in stored if n.endswith(".codes")]:
        planes = {p: stored[f"{name}.{p}"] for p in ("codes", "scale", "zero")
                  if f"{name}.{p}" in stored}  # fmt: skip
        values = dequantize(planes, bits, parameters[name].shape[-1])
        with torch.no_grad():
            parameters[name].copy_(torch.from_numpy(values))
        replaced += 1
    assert replaced > 0
    return model


def packed_bytes(model: effc.CompiledModel) -> int:
    """Bytes of all packed planes that the program reads."""
    suffixes = (".codes", ".scale", ".zero")
    return sum(w.nbytes for n, w in model.program.weights.items() if n.endswith(suffixes))


def quantized_parameters(source: Path) -> list[tuple[int, int]]:
    """Rows and columns of every weight that the rule selects, each once."""
    from effc.canonical import canonical_program
    from effc.spec.schema import Policy

    program, _, _ = canonical_program(source, Policy())
    shapes = {
        site.weight: site.shape
        for site in find_sites(program)
        if site.kind in ("linear", "experts", "embedding")
    }
    return [(int(np.prod(shape[:-1])), shape[-1]) for shape in shapes.values()]


def check(source: Path, oracle: Any, scheme: Scheme, ids: torch.Tensor, out: Path) -> None:
    """Bytes against the closed form, logits against the oracle."""
    fast = effc.optimize(source, spec=scheme.policy)
    expected = sum(scheme.closed_form(*shape) for shape in quantized_parameters(source))
    assert packed_bytes(fast) == pytest.approx(expected, rel=0.02)
    fast.save(out)
    with_dequantized_weights(oracle, out, scheme.bits)
    with torch.no_grad():
        reference = oracle(ids).logits
    logits = effc.load(out)(ids).logits
    assert (logits - reference).abs().max() <= 1e-5 * reference.abs().max()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_mixtral(tmp_path: Path, scheme: Scheme) -> None:
    """Experts, router and head; every expert is packed."""
    family = next(f for f in FAMILIES if f.name == "Mixtral")
    oracle = family.save(tmp_path / "model")
    ids = torch.randint(5, 199, (2, 23))
    check(tmp_path / "model", oracle, scheme, ids, tmp_path / "out")


@pytest.mark.parametrize("scheme", SCHEMES[:1], ids=str)
def test_reference_model(tmp_path: Path, scheme: Scheme) -> None:
    """The shipped model, whose embedding and head are one packed weight."""
    from transformers import AutoModelForCausalLM

    oracle = AutoModelForCausalLM.from_pretrained(
        REFERENCE, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.randint(5, oracle.config.vocab_size, (2, 48))
    check(REFERENCE, oracle, scheme, ids, tmp_path / "out")


def test_int8_activations_cost_little_and_are_the_default_on_a_cpu(tmp_path: Path) -> None:
    """Symmetric per row and group: about as far from "source" as 8 bits are, and not equal."""
    family = next(f for f in FAMILIES if f.name == "Llama")
    family.save(tmp_path)
    rule = {"where": "linear", "method": "rtn", "bits": 8, "group": 32}
    ids = torch.randint(5, 199, (1, 30))
    logits = {}
    for activations in (None, "int8", "source"):
        extra = {} if activations is None else {"activations": activations}
        logits[activations] = effc.optimize(tmp_path, spec={"quantize": [rule | extra]})(ids).logits
    assert torch.equal(logits[None], logits["int8"])
    distance = (logits["int8"] - logits["source"]).norm() / logits["source"].norm()
    assert 1e-4 < distance < 0.1
