"""The cases of `onnx.backend.test`, as the installed onnx has them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")

DataSet = tuple[Sequence[Any], Sequence[Any]]
"""Inputs and expected outputs: arrays, lists of them for sequences, None for what is absent."""


@dataclass(frozen=True)
class Case:
    """One model with data.

    Attributes:
        kind: of `KINDS`.
        name: as onnx calls it.
        rtol, atol: how far values may be from the expected ones.
        source: onnx's own description of the case.
    """

    kind: str
    name: str
    rtol: float
    atol: float
    source: Any

    @property
    def model(self) -> onnx.ModelProto:
        """The model."""
        if self.source.model is not None:
            return self.source.model
        return onnx.load(Path(self.source.model_dir) / "model.onnx")

    @property
    def data_sets(self) -> list[DataSet]:
        """All inputs with their outputs."""
        if self.source.data_sets is not None:
            return [(_arrays(given), _arrays(wanted)) for given, wanted in self.source.data_sets]
        graph, folder = self.model.graph, Path(self.source.model_dir)
        return [
            (_read(data, "input", graph.input), _read(data, "output", graph.output))
            for data in sorted(folder.glob("test_data_set*"))
        ]

    @property
    def operator(self) -> str:
        """What the case is about: the operator of its first node that is no constant."""
        nodes = [node.op_type for node in self.model.graph.node if node.op_type != "Constant"]
        return nodes[0] if nodes else "Constant"


@cache
def cases(kind: str) -> tuple[Case, ...]:
    """All cases of one kind, by name."""
    from onnx.backend.test.loader import load_model_tests

    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = load_model_tests(kind=kind)
    made = (Case(kind, case.name, case.rtol, case.atol, case) for case in found)
    return tuple(sorted(made, key=lambda case: case.name))


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [_array(value) for value in values]


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list):
        return _arrays(value)
    return value if value is None else np.asarray(value)


def _read(folder: Path, stem: str, declared: Any) -> list[Any]:
    count = len(list(folder.glob(f"{stem}_*.pb")))
    return [_parse(folder / f"{stem}_{i}.pb", declared[i].type) for i in range(count)]


def _parse(path: Path, type: onnx.TypeProto) -> Any:
    content = path.read_bytes()
    if type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if type.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))
