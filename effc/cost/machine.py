"""The machine that a prediction is made for: three numbers and where they come from.

Predictions never look at the machine they run on. GPUs come from their data sheets, so that a plan
for a device can be made without one; a CPU is measured only when a caller asks for it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

PROBE_BYTES = 256 << 20
"""What a plan's probe reads. The fair figure for a benchmark takes 1 GiB or more."""

PROBE_THREADS = 2


@dataclass(frozen=True)
class Machine:
    """What a roofline needs to know.

    Attributes:
        name: the device.
        peak_flops: dense multiply-adds, two FLOP each, per second, in the type `source` names.
        bandwidth: bytes per second between memory and processor.
        memory: bytes of that memory.
        source: a data sheet, or how it was measured.
    """

    name: str
    peak_flops: float
    bandwidth: float
    memory: int
    source: str

    @property
    def ridge(self) -> float:
        """FLOP per byte at which arithmetic takes as long as moving data."""
        return self.peak_flops / self.bandwidth


_A100 = Machine(
    "A100-SXM4-80GB", 312e12, 2039e9, 80 * 10**9,
    "NVIDIA A100 data sheet (2021): fp16/bf16 tensor cores, dense",
)  # fmt: skip
_H100 = Machine(
    "H100-SXM5-80GB", 989.4e12, 3350e9, 80 * 10**9,
    "NVIDIA H100 data sheet (2023): fp16/bf16 tensor cores, dense",
)  # fmt: skip
_H200 = Machine(
    "H200-SXM-141GB", 989.4e12, 4800e9, 141 * 10**9,
    "NVIDIA H200 data sheet (2024): fp16/bf16 tensor cores, dense",
)  # fmt: skip
_CPU = Machine(
    "two AVX-512 cores", 320e9, 33e9, 16 * 10**9,
    "nominal, not this machine: 2 cores x 64 fp32 FLOP per cycle x 2.5 GHz, 33 GB/s read",
)  # fmt: skip

DATA_SHEETS: dict[str, Machine] = {m.name: m for m in (_A100, _H100, _H200)}

_ARCHITECTURES = {"sm80": _A100, "sm90": _H100}


def machine_of(device: str) -> Machine:
    """The machine behind `target.device`, without looking at this one.

    Where several products have one architecture, the one with the least bandwidth is meant. Where
    no architecture is named, or one without a data sheet here, the A100 stands in and `source`
    says so: a compile must not fail for want of a time bound.

    Args:
        device: "cpu", "cuda", or an architecture such as "cuda:sm90".
    """
    kind, _, architecture = device.partition(":")
    if kind == "cpu":
        return _CPU
    if architecture in _ARCHITECTURES:
        return _ARCHITECTURES[architecture]
    why = f"no data sheet of {architecture} is known" if architecture else "no architecture named"
    return replace(_A100, source=f"assumed, {why}: {_A100.source}")


def measure_cpu(probe_bytes: int = PROBE_BYTES, threads: int = PROBE_THREADS) -> Machine:
    """This machine's CPU, measured in well under a second.

    Bandwidth: the best of several streaming sums over `probe_bytes` of float32. Peak: the best of
    several float32 matrix products.

    Args:
        probe_bytes: far more than the caches hold, or they are what is measured.
        threads: used by both probes, as many as there are cores at most.
    """
    import torch

    before = torch.get_num_threads()
    used = min(threads, os.cpu_count() or 1)
    torch.set_num_threads(used)
    try:
        data = torch.ones(probe_bytes // 4)
        bandwidth = data.nbytes / _best(data.sum, 4)
        del data
        side = 768
        matrix = torch.ones(side, side)
        peak = 2 * side**3 / _best(lambda: matrix @ matrix, 8)
    finally:
        torch.set_num_threads(before)
    source = (
        f"measured on this machine, {used} thread{'s' * (used > 1)}: streaming sum over "
        f"{probe_bytes >> 20} MiB, float32 product of {side} x {side} matrices"
    )
    return Machine(_cpu_name(), peak, bandwidth, _cpu_memory(), source)


def _best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of several calls after one that warms up."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _cpu_name() -> str:
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _cpu_memory() -> int:
    """Bytes of main memory; what the operating system says where there is no /proc/meminfo."""
    for line in _lines("/proc/meminfo"):
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
