"""The Triton kernel of `effc::quantized_linear`: interpreted, and compiled ahead of time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from effc.kernels.quantized_linear.cases import call
from effc.kernels.registry import candidates

triton = pytest.importorskip("triton", reason="Triton is for Linux only")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from effc.kernels.quantized_linear.triton import (  # noqa: E402
    _quantized_linear_kernel,
    constants,
    supports,
    tile_config,
)

ROOT = Path(__file__).parents[2]
POINTERS = {"codes_ptr": "*u8", "zero_ptr": "*u8"}
SIZES = ("M", "N", "K", "code_bytes", "groups", "zero_bytes", "stride_xm", "stride_xk")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, object]:
    finished = subprocess.run(
        [sys.executable, str(ROOT / "tests/kernels/interpret_quantized_linear.py")],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_kernel_is_as_exact_as_low_precision_allows(interpreted: dict[str, object]) -> None:
    assert len(interpreted["excess"]) > 150
    wrong = {name: excess for name, excess in interpreted["excess"].items() if not excess <= 0}
    assert not wrong


def test_row_does_not_depend_on_its_batch(interpreted: dict[str, object]) -> None:
    assert interpreted["changed_rows"] == 0


def test_tolerance_notices_one_wrong_code(interpreted: dict[str, object]) -> None:
    assert interpreted["one_code_off"] > 0


def compiled(
    architecture: int, dtype: str, bits: int, group: int, zero: bool, rows: int, scales: str
) -> triton.compiler.CompiledKernel:
    """The kernel built for a GPU that need not be there, as a launch would specialize it."""
    tile = tile_config(rows, 4864, DTYPES[dtype])
    groups = -(-896 // group)
    values = constants(bits, group, groups, tile) | {"stride_xk": 1}
    values |= {} if zero else {"zero_ptr": None}
    types = POINTERS | {"scale_ptr": f"*{scales}"}
    types |= dict.fromkeys(("x_ptr", "bias_ptr", "out_ptr"), f"*{dtype}")
    types |= dict.fromkeys(SIZES, "i32") | dict.fromkeys(values, "constexpr")
    names = _quantized_linear_kernel.arg_names
    aligned = ("x_ptr", "codes_ptr", "scale_ptr", "out_ptr", "N", "K", "code_bytes", "stride_xm")
    source = ASTSource(
        _quantized_linear_kernel,
        {name: types[name] for name in names},
        values,
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
        "enable_fp_fusion": True,
    }
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """Registers per thread (REG), and bytes per thread on the stack and spilled (STACK, LOCAL)."""
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    listing = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", listing)}


@pytest.mark.parametrize("architecture", (80, 90))
@pytest.mark.parametrize(
    ("dtype", "rows", "bits", "group", "zero", "scales", "programs"),
    (
        ("fp16", 1, 4, 32, True, "fp16", 4),
        ("bf16", 16, 8, 896, False, "fp16", 4),
        ("bf16", 512, 4, 32, False, "fp16", 3),
        ("fp16", 512, 8, 32, True, "fp16", 3),
        ("fp32", 1, 4, 128, False, "fp16", 2),
        ("fp32", 512, 8, 32, True, "fp16", 2),
        ("fp16", 1, 2, 32, True, "fp16", 4),
        ("bf16", 512, 2, 16, False, "fp16", 3),
        ("fp16", 1, 3, 32, True, "fp16", 4),
        ("bf16", 512, 3, 128, True, "fp16", 2),
        ("fp32", 512, 3, 32, False, "fp16", 2),
        ("fp32", 1, 4, 32, False, "fp32", 2),
        ("bf16", 512, 4, 32, True, "fp32", 3),
    ),
)
def test_kernel_compiles_without_spills(
    architecture: int,
    dtype: str,
    rows: int,
    bits: int,
    group: int,
    zero: bool,
    scales: str,
    programs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel = compiled(architecture, dtype, bits, group, zero, rows, scales)
    used = resources(kernel.asm["cubin"], tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0
    # So many programs of 4 warps fit on a multiprocessor, with its 65536 registers and the 160 KiB
    # of shared memory that sm_80 and sm_90 have at the least.
    assert used["REG"] * 4 * 32 * programs <= 65536
    assert kernel.metadata.shared * programs <= 160 * 1024


def test_kernel_says_what_it_does_not_support() -> None:
    assert supports(call(), "cuda").ok
    assert "int8" in supports(call(activations="int8"), "cuda").reason
    assert "float64" in supports(call(dtype=torch.float64), "cuda").reason


def test_kernel_is_registered_for_cuda() -> None:
    (entry,) = candidates("quantized_linear", "cuda")
    assert entry.check(call(), "cuda").ok
    assert callable(entry.load())
