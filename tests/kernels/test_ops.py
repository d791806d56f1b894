"""Every operator with a `cases.py`: meaning, shapes, row invariance, refusals."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import effc.kernels
from effc.diagnostics import EffcError
from effc.kernels.cases import Arguments, OpCases, Refusal, Sample, excess
from effc.kernels.grouped_linear.rows import INVARIANT_ROWS
from effc.kernels.packing.cases import random_tensor


def tables() -> Iterator[OpCases]:
    for path in sorted(Path(next(iter(effc.kernels.__path__))).glob("*/cases.py")):
        folder = path.parent.name
        table = getattr(importlib.import_module(f"effc.kernels.{folder}.cases"), "CASES", None)
        if table is not None:
            importlib.import_module(f"effc.kernels.{table.op}.op")
            yield table


TABLES = list(tables())
SAMPLES = [
    pytest.param(table, sample, id=f"{table.op}: {sample.name}")
    for table in TABLES
    for sample in table.samples
]
REFUSALS = [
    pytest.param(table, refusal, id=f"{table.op}: {refusal.name}")
    for table in TABLES
    for refusal in table.refusals
]


def operator(table: OpCases) -> torch._ops.OpOverload:
    return getattr(torch.ops.effc, table.op).default


def count_rows(table: OpCases, arguments: Arguments) -> int:
    if not table.rows or arguments[table.rows[0]].ndim == 0:
        return 1
    return int(np.prod(arguments[table.rows[0]].shape[: 1 if len(table.rows) > 1 else -1]))


INVARIANT = [
    pytest.param(table, sample, id=f"{table.op}: {sample.name}")
    for table in TABLES
    for sample in table.samples
    if 1 < count_rows(table, sample.make()) <= INVARIANT_ROWS
]


def test_every_quantization_operator_has_a_table() -> None:
    expected = {
        "grouped_linear",
        "quantized_embedding",
        "quantized_grouped_linear",
        "quantized_linear",
    }
    assert expected <= {table.op for table in TABLES}


@pytest.mark.parametrize(("table", "sample"), SAMPLES)
def test_reference_is_as_exact_as_low_precision_allows(table: OpCases, sample: Sample) -> None:
    arguments = sample.make()
    result = operator(table)(**arguments)
    exact = table.exact(**arguments)
    assert result.shape == exact.shape
    assert excess(result, exact, table.eager(**arguments)) <= 0


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.op)
def test_tolerance_notices_one_wrong_number_in_a_weight(table: OpCases) -> None:
    arguments = table.samples[0].make()
    exact, eager = table.exact(**arguments), table.eager(**arguments)
    if "weight" in arguments:
        arguments["weight"][2, 0, 0] += 1e-4
    else:
        rows = arguments["codes"].flatten(0, -2)
        rows[:, 0] ^= 1
    assert excess(operator(table)(**arguments), exact, eager) > 0


@pytest.mark.parametrize(("table", "sample"), SAMPLES)
def test_every_number_of_the_result_is_written(
    table: OpCases, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = operator(table)(**sample.make())
    arguments = sample.make()
    empty = torch.empty

    def poisoned(*args: object, **options: object) -> torch.Tensor:
        return empty(*args, **options).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", poisoned)
    result = operator(table)(**arguments)
    monkeypatch.undo()
    assert torch.equal(result, expected)


@pytest.mark.parametrize(("table", "sample"), SAMPLES)
def test_fake_has_the_shape_and_dtype_of_the_result(table: OpCases, sample: Sample) -> None:
    arguments = sample.make()
    result = operator(table)(**arguments)
    with FakeTensorMode() as mode:
        fakes = {
            name: mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
            for name, value in arguments.items()
        }
        fake = operator(table)(**fakes)
    assert (fake.shape, fake.dtype, fake.stride()) == (result.shape, result.dtype, result.stride())


@pytest.mark.parametrize(("table", "sample"), SAMPLES)
def test_operator_is_registered_well(table: OpCases, sample: Sample) -> None:
    torch.library.opcheck(operator(table), (), sample.make())


@pytest.mark.parametrize(("table", "sample"), SAMPLES)
def test_arguments_are_left_alone(table: OpCases, sample: Sample) -> None:
    arguments, expected = sample.make(), sample.make()
    operator(table)(**arguments)
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(("table", "sample"), INVARIANT)
def test_row_does_not_depend_on_its_batch(table: OpCases, sample: Sample) -> None:
    arguments = sample.make()
    together = operator(table)(**arguments)
    for row in range(together.shape[0]):
        alone = arguments | {name: arguments[name][row : row + 1] for name in table.rows}
        assert torch.equal(operator(table)(**alone)[0], together[row])


@pytest.mark.parametrize(("table", "sample"), INVARIANT)
def test_row_does_not_depend_on_the_number_of_threads(table: OpCases, sample: Sample) -> None:
    arguments = sample.make()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(operator(table)(**arguments))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_single_long_sum_does_not_depend_on_the_number_of_threads() -> None:
    arguments = {
        "x": random_tensor(2, 100_000),
        "weight": random_tensor(1, 1, 100_000, seed=1),
        "expert_ids": torch.zeros(2, dtype=torch.int64),
        "bias": None,
        "transposed": False,
    }
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = torch.ops.effc.grouped_linear(**arguments)
        torch.set_num_threads(3)
        assert torch.equal(torch.ops.effc.grouped_linear(**arguments), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("table", "refusal"), REFUSALS)
def test_wrong_call_is_refused_by_name(table: OpCases, refusal: Refusal) -> None:
    with pytest.raises(EffcError) as caught:
        operator(table)(**refusal.make())
    assert refusal.message in str(caught.value)
