"""`effc doctor`: what is there, what is missing, what is broken, and what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from effc import doctor
from effc.cli import main
from effc.doctor import Finding, disk, instruction_sets, memory, package_finding
from effc.kernels.registry import KERNELS

ROOT = Path(__file__).parents[2]
CPUINFO = """processor\t: 0
model name\t: Some CPU 9000
flags\t\t: fpu sse2 avx2 avx512f amx_tile avx512_vnni

processor\t: 1
flags\t\t: none
"""


@pytest.mark.parametrize(
    ("installed", "extra", "status", "fatal"),
    (
        ("2.11.0", "", "ok", False),
        ("2.13.0+cpu", "", "ok", False),
        ("2.11.0rc1", "", "warning", False),
        ("2.9.1", "", "warning", False),
        (None, "", "missing", True),
        ("2.9.1", "onnx", "warning", False),
        (None, "onnx", "missing", False),
    ),
)
def test_packages(installed: str | None, extra: str, status: str, fatal: bool) -> None:
    finding = package_finding(Requirement("torch>=2.11"), extra, installed)
    assert (finding.status, finding.fatal) == (status, fatal)
    assert ">=2.11" in finding.found
    install = "effc[onnx]" if extra else "torch>=2.11"
    assert finding.remedy == ("" if status == "ok" else f"pip install '{install}'")


def test_every_requirement_and_extra_is_looked_at() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    wanted += [text for extra in doctor.EXTRAS for text in project["optional-dependencies"][extra]]
    looked_at = {finding.name for finding in doctor.examine() if finding.area == "packages"}
    # Installed metadata may be older than the file by what was added since.
    assert looked_at - {"effc"} <= {Requirement(text).name for text in wanted}
    assert {"torch", "transformers", "safetensors", "onnx", "torch-mlir"} <= looked_at


def test_instruction_sets_are_those_of_the_processor() -> None:
    finding = instruction_sets(CPUINFO, "x86_64")
    assert finding.status == "ok"
    assert finding.found == "Some CPU 9000: avx2 avx512f avx512_vnni amx_tile"
    arm = instruction_sets("Features\t: fp asimd asimddp sve\n", "aarch64")
    assert arm.found == "aarch64: asimd asimddp sve"
    assert instruction_sets("flags\t: fpu\n", "x86_64").status == "warning"
    assert instruction_sets("", "arm64").status == "warning"


def test_memory_is_in_binary_units() -> None:
    finding = memory("MemTotal:  2097152 kB\nMemFree: 1 kB\nMemAvailable: 1048576 kB\n")
    assert (finding.status, finding.found) == ("ok", "1.0 GiB free of 2.0 GiB")
    assert memory("").status == "warning"


def test_the_disk_is_that_of_the_nearest_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "not" / "yet"
    assert str(folder) in disk(folder).found
    assert not folder.exists()
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 80)
    assert disk(folder).status == "warning"


def test_every_kernel_of_every_operator_is_listed() -> None:
    import torch

    states, problem = doctor.kernel_states()
    assert problem is None
    assert {state.operator for state in states} == set(torch.ops.effc)
    listed = {(state.operator, state.device, state.kernel) for state in states}
    assert {(entry.op, entry.device, entry.name) for entry in KERNELS} <= listed
    assert all(state.runs for state in states if state.device == "cpu")
    for state in states:
        assert state.runs != bool(state.reason)
        if state.device == "cuda" and not torch.cuda.is_available():
            assert state.reason == "no CUDA device"


def test_misspelt_and_slow_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EFFC_KERNEL", "reference")
    monkeypatch.setenv("EFFC_KERNELS", "reference")
    assert main(["doctor"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "-> did you mean EFFC_KERNELS?" in lines
    assert "warning EFFC_KERNELS reference" in lines


def test_json_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["ok"] and listed["kernels"] and listed["findings"]
    gone = Finding("packages", "torch", "missing", "not installed", "pip install torch", True)
    monkeypatch.setattr(doctor, "examine", lambda: [gone])
    assert main(["doctor", "--json"]) == 5
    assert not json.loads(capsys.readouterr().out)["ok"]
    assert main(["doctor"]) == 5
    said = capsys.readouterr().out
    assert "-> pip install torch" in said and "effc cannot work here: torch" in said


def test_without_torch_it_says_so() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from effc.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5, done.stderr
    assert "reinstall torch" in done.stdout and "Traceback" not in done.stderr
