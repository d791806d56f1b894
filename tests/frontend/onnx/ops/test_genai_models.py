"""Decoders of the onnxruntime-genai builder, with their cache as inputs, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import effc
from effc.ir.sites import Site, find_sites

FIXTURES = Path(__file__).parents[3] / "fixtures" / "onnx"
Step = dict[str, np.ndarray]


class Loop:
    """Greedy decoding with ONNX Runtime or with the imported program.

    Attributes:
        session: of the file; also says what its inputs are.
        run: inputs by name -> outputs.
    """

    def __init__(self, file: Path, imported: bool) -> None:
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_inputs()]
        program = effc.import_onnx(file) if imported else None

        def run(inputs: Step) -> list[np.ndarray]:
            if program is None:
                return self.session.run(None, inputs)
            return [out.numpy() for out in program(*(torch.tensor(inputs[n]) for n in self.names))]

        self.run = run

    def empty(self, batch: int, width: int) -> Step:
        """The cache before the first token."""
        past = [v for v in self.session.get_inputs() if v.name.startswith("past")]
        return {v.name: np.zeros((batch, v.shape[1], 0, width), np.float32) for v in past}

    def steps(self, prompt: np.ndarray, width: int, count: int) -> list[list[np.ndarray]]:
        """The outputs of the prompt and of `count` tokens after it."""
        ids, cache, found = prompt, self.empty(len(prompt), width), []
        for step in range(count + 1):
            seen = np.ones((len(prompt), prompt.shape[1] + step), dtype=np.int64)
            found.append(self.run({"input_ids": ids, "attention_mask": seen} | cache))
            ids = found[-1][0][:, -1:].argmax(-1)
            cache = dict(zip(cache, found[-1][1:], strict=True))
        return found


@pytest.mark.parametrize("name", ("genai_llama_fp32", "genai_qwen2_int4"))
def test_every_step_is_that_of_onnxruntime(name: str) -> None:
    file = FIXTURES / name / "model.onnx"
    prompt = np.random.default_rng(0).integers(3, 64, (2, 7))
    ours, theirs = (Loop(file, imported).steps(prompt, 16, 6) for imported in (True, False))
    for found, expected in zip(ours, theirs, strict=True):
        for mine, same in zip(found, expected, strict=True):
            assert mine.shape == same.shape
            assert np.abs(mine - same).max() <= 1e-5 * np.abs(same).max()
        assert np.array_equal(found[0].argmax(-1), expected[0].argmax(-1))


def packed_sites() -> list[Site]:
    program = effc.import_onnx(FIXTURES / "genai_qwen2_int4" / "model.onnx")
    return [site for site in find_sites(program) if site.kind == "linear"]


def test_weights_that_came_packed_are_sites_with_their_bits() -> None:
    sites = packed_sites()
    assert {site.bits for site in sites} == {4}
    widths = {site.name.rpartition(".")[2]: site.shape for site in sites}
    assert widths["down_proj"] == (64, 128)
    assert widths["lm_head"][1] == 64
    for site in sites:
        assert site.params == site.shape[0] * site.shape[1]
        assert site.width == site.shape[0]
        assert [plane.rpartition(".")[2] for plane in site.planes] == ["codes", "scale"]


def test_bytes_of_a_packed_site_are_those_of_its_planes() -> None:
    """4 bits per weight, and a float32 for each block of 32."""
    program = effc.import_onnx(FIXTURES / "genai_qwen2_int4" / "model.onnx")
    for site in packed_sites():
        nbytes = sum(program.weights[plane].nbytes for plane in site.planes)
        assert nbytes * 8 == site.params * (4 + 32 / 32)
