"""Models as the quantizer of ONNX Runtime writes them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime import quantization
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

import effc
from effc.ir.journal import Journal
from effc.ir.pattern import op_name
from effc.passes.raising.quantized_linear import RaiseQuantizedLinear

BERT = Path(__file__).parents[3] / "fixtures" / "onnx" / "optimum_bert" / "model.onnx"
Format = quantization.QuantFormat
Write = Callable[[Path], None]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The quantizer logs advice, to the root logger."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def sample() -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(3, 50, (2, 9))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


class Calibration(quantization.CalibrationDataReader):
    """One batch."""

    def __init__(self) -> None:
        self.batches = iter([sample()])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def dynamic(per_channel: bool) -> Write:
    """Weights as integers, activations quantized to their own range when the model runs."""
    return lambda path: quantization.quantize_dynamic(BERT, path, per_channel=per_channel)


def static(form: Format, per_channel: bool) -> Write:
    """Ranges of activations from calibration."""

    def write(path: Path) -> None:
        quantization.quantize_static(
            BERT, path, Calibration(), quant_format=form, per_channel=per_channel
        )

    return write


def packed(form: Format, symmetric: bool) -> Write:
    """Weights in 4 bits, in blocks."""

    def write(path: Path) -> None:
        quantizer = MatMulNBitsQuantizer(
            onnx.load(BERT),
            block_size=32,
            is_symmetric=symmetric,
            accuracy_level=4,
            quant_format=form,
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(path), False)

    return write


WRITERS: dict[str, Write] = {
    "dynamic": dynamic(False),
    "dynamic, per channel": dynamic(True),
    "QDQ": static(Format.QDQ, False),
    "QDQ, per channel": static(Format.QDQ, True),
    "QLinear": static(Format.QOperator, False),
    "MatMulNBits": packed(Format.QOperator, True),
    "MatMulNBits, zero points": packed(Format.QOperator, False),
    "4-bit QDQ": packed(Format.QDQ, True),
    "4-bit QDQ, zero points": packed(Format.QDQ, False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_results_are_those_of_onnxruntime(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    WRITERS[name](path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, sample())
    given = [torch.from_numpy(sample()[value.name]) for value in session.get_inputs()]
    (found,) = effc.import_onnx(path)(*given)
    assert np.abs(found.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ("MatMulNBits", "4-bit QDQ", "4-bit QDQ, zero points"))
def test_all_weights_arrive_in_4_bits(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    WRITERS[name](path)
    program = effc.import_onnx(path)
    RaiseQuantizedLinear()(program, Journal())
    linears = [n for _, n in program.nodes() if op_name(n) == "effc.quantized_linear.default"]
    products = [node for node in onnx.load(BERT).graph.node if node.op_type == "MatMul"]
    of_activations = 2 * 2  # scores and values of two layers
    assert [node.args[5] for node in linears] == [4] * (len(products) - of_activations)
