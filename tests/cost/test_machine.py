"""Machines from data sheets, and this one measured."""

from __future__ import annotations

import pytest
import torch

from effc.cost.machine import DATA_SHEETS, machine_of, measure_cpu


@pytest.mark.parametrize(
    ("device", "name"),
    (
        ("cpu", "two AVX-512 cores"),
        ("cuda", "A100-SXM4-80GB"),
        ("cuda:sm80", "A100-SXM4-80GB"),
        ("cuda:sm90", "H100-SXM5-80GB"),
    ),
)
def test_every_target_has_a_machine(device: str, name: str) -> None:
    assert machine_of(device).name == name


def test_an_assumption_is_named() -> None:
    assert machine_of("cuda").source.startswith("assumed, no architecture named: ")
    assert machine_of("cuda:sm75").source.startswith("assumed, no data sheet of sm75 is known: ")
    assert "nominal" in machine_of("cpu").source


def test_data_sheets_agree_with_their_names() -> None:
    for name, machine in DATA_SHEETS.items():
        assert machine.memory == int(name.rpartition("-")[2].removesuffix("GB")) * 10**9
        assert machine.ridge > 100


def test_a_measured_cpu_is_plausible_and_leaves_no_trace() -> None:
    before = torch.get_num_threads()
    machine = measure_cpu(probe_bytes=32 << 20, threads=1)
    assert torch.get_num_threads() == before
    assert 1e8 < machine.bandwidth < 1e13
    assert 1e8 < machine.peak_flops < 1e15
    assert machine.memory > 1 << 28
    assert "32 MiB" in machine.source and "1 thread:" in machine.source
