"""What this machine can do: packages, compilers, processor, memory, devices, kernels, settings.

    findings, kernels = examine(), kernel_states()

Reads what is installed and what the system says of itself; nothing is sent anywhere, and the
network is not used.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from effc.diagnostics import nearest
from effc.settings import VARIABLES, cache_folder, settings, unknown_variables

EXTRAS = ("onnx", "mlir")
DEVICES = ("cpu", "cuda")

X86_SETS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni",
            "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")  # fmt: skip
ARM_SETS = ("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2")

LITTLE_DISK = 2 << 30
"""Bytes below which the cache folder's disk gets a warning."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        area: what kind of thing it is.
        name: the thing.
        status: "ok", "missing", "warning", or "broken" for something required that cannot work.
        found: what is there, and what is needed.
        remedy: what to do about it; empty when nothing has to be done.
        required: whether effc cannot work without it.
    """

    area: str
    name: str
    status: str
    found: str
    remedy: str = ""
    required: bool = False

    @property
    def fatal(self) -> bool:
        """Whether effc cannot work because of it."""
        return self.required and self.status in ("missing", "broken")


@dataclass(frozen=True)
class KernelState:
    """Whether one implementation of an operator can run here, and why not."""

    operator: str
    device: str
    kernel: str
    runs: bool
    reason: str = ""


def examine() -> list[Finding]:
    """Everything but the kernels, in the order in which it is best read."""
    return [*_python(), *_packages(), *_compilers(), *_machine(), *_devices(), *_settings()]


def kernel_states() -> tuple[list[KernelState], Finding | None]:
    """Every implementation of every operator, by device.

    Returns:
        The states, and what is wrong where the operators cannot even be registered.
    """
    try:
        import torch

        import effc.ops  # noqa: F401  (registers the operators)
        from effc.kernels.registry import REFERENCE, candidates
    except (ImportError, OSError, RuntimeError) as error:
        text = f"the operators cannot be registered: {type(error).__name__}: {error}"
        return [], Finding("kernels", "effc.ops", "broken", text, "reinstall torch and effc", True)
    states = []
    absent = {"cpu": "", "cuda": "" if torch.cuda.is_available() else "no CUDA device"}
    for operator in sorted(torch.ops.effc):
        for device in DEVICES:
            for entry in candidates(operator, device):
                reason = absent[device] or _import_problem(entry.location)
                states.append(KernelState(operator, device, entry.name, not reason, reason))
            reason = absent[device]
            states.append(KernelState(operator, device, REFERENCE, not reason, reason))
    return states, None


def _import_problem(location: str) -> str:
    """Why the module of a kernel cannot be imported; empty when it can."""
    from importlib import import_module

    try:
        import_module(location.partition(":")[0])
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _python() -> Iterator[Finding]:
    found = platform.python_version()
    try:
        wanted = metadata.metadata("effc")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        yield Finding("python", "python", "ok", found)
        return
    fits = SpecifierSet(wanted).contains(found, prereleases=True)
    remedy = "" if fits else f"install Python {wanted}"
    status = "ok" if fits else "warning"
    yield Finding("python", "python", status, f"{found} (needs {wanted})", remedy, required=True)


def _packages() -> Iterator[Finding]:
    """What effc's own metadata asks for, against what is installed."""
    try:
        requirements = [Requirement(text) for text in metadata.requires("effc") or ()]
        yield Finding("packages", "effc", "ok", metadata.version("effc"))
    except metadata.PackageNotFoundError:
        remedy = "pip install -e ."
        yield Finding("packages", "effc", "warning", "runs without being installed", remedy)
        return
    for extra in ("", *EXTRAS):
        for requirement in requirements:
            if _applies(requirement, extra):
                yield package_finding(requirement, extra, _installed(requirement.name))


def _applies(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement belongs to an extra, or to effc itself when `extra` is empty."""
    if requirement.marker is None:
        return not extra
    base = requirement.marker.evaluate({"extra": ""})
    return base if not extra else not base and requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_finding(requirement: Requirement, extra: str, installed: str | None) -> Finding:
    """Judge one package. One of another version than asked for may work; one missing cannot.

    Args:
        requirement: what effc asks for.
        extra: the extra it belongs to; empty for what effc cannot work without.
        installed: the version that is there, None if there is none.
    """
    name, required = requirement.name, not extra
    wanted = str(requirement.specifier) or "any version"
    install = f"pip install 'effc[{extra}]'" if extra else f"pip install '{name}{wanted}'"
    if installed is None:
        purpose = "" if required else f", optional: for the extra {extra!r}"
        found = f"not installed (needs {wanted}{purpose})"
        return Finding("packages", name, "missing", found, install, required)
    found = f"{installed} (needs {wanted})"
    if requirement.specifier.contains(installed, prereleases=True):
        return Finding("packages", name, "ok", found, required=required)
    return Finding("packages", name, "warning", found, install, required)


def _compilers() -> Iterator[Finding]:
    for language, names in (("C", ("cc", "gcc", "clang")), ("C++", ("c++", "g++", "clang++"))):
        path = next(filter(None, map(shutil.which, names)), None)
        if path is None:
            found = f"none of {', '.join(names)} is in PATH"
            remedy = "install gcc or clang: kernels written in C++, and Triton, need one"
            yield Finding("compilers", f"{language} compiler", "missing", found, remedy)
        else:
            yield Finding("compilers", f"{language} compiler", "ok", f"{path}: {_version_of(path)}")


def _version_of(program: str) -> str:
    """The first line that a program says of its version."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not say its version ({error})"
    return (done.stdout or done.stderr).split("\n", 1)[0].strip()


def _machine() -> Iterator[Finding]:
    yield instruction_sets(_system_text("/proc/cpuinfo"), platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "cores", "ok", f"{cores} usable of {os.cpu_count()}")
    yield memory(_system_text("/proc/meminfo"))
    yield disk(cache_folder())


def _system_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def instruction_sets(cpuinfo: str, machine: str) -> Finding:
    """The vector instructions that kernels can use.

    Args:
        cpuinfo: the content of /proc/cpuinfo, empty where there is none.
        machine: "x86_64", "aarch64", ...
    """
    line = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    if line is None:
        return Finding("machine", "processor", "warning", f"{machine}, instruction sets unknown")
    flags = line[1].split()
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    known = [name for name in (*X86_SETS, *ARM_SETS) if name in flags]
    found = f"{model[1] if model else machine}: {' '.join(known) or 'no known vector instructions'}"
    return Finding("machine", "processor", "ok" if known else "warning", found,
                   "" if known else "expect the references to be slow")  # fmt: skip


def memory(meminfo: str) -> Finding:
    """Main memory, from the content of /proc/meminfo."""
    sizes = {key: int(kib) * 1024 for key, kib in re.findall(r"(\w+):\s+(\d+) kB", meminfo)}
    if "MemTotal" not in sizes:
        return Finding("machine", "memory", "warning", "its size is not known here")
    free = sizes.get("MemAvailable", sizes.get("MemFree", 0))
    found = f"{_gib(free)} free of {_gib(sizes['MemTotal'])}"
    return Finding("machine", "memory", "ok", found)


def disk(folder: Path) -> Finding:
    """Free space where compiled code is kept."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    found = f"{_gib(free)} free at {folder}"
    if not os.access(there, os.W_OK):
        remedy = f"make {there} writable, or set XDG_CACHE_HOME"
        return Finding("machine", "cache folder", "warning", f"{there} is read-only", remedy)
    if free < LITTLE_DISK:
        return Finding("machine", "cache folder", "warning", found, "free some space")
    return Finding("machine", "cache folder", "ok", found)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        found = f"import torch fails: {error}"
        yield Finding("devices", "torch", "broken", found, "reinstall torch", required=True)
        return
    if not torch.cuda.is_available():
        why = "torch was built without CUDA" if torch.version.cuda is None else "no driver or GPU"
        remedy = 'none needed for target.device = "cpu"'
        yield Finding("devices", "cuda", "missing", why, remedy)
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found = f"{facts.name}, sm{facts.major}{facts.minor}, {_gib(facts.total_memory)}"
        yield Finding("devices", f"cuda:{index}", "ok", found)


def _settings() -> Iterator[Finding]:
    """Settings that differ from their defaults, and variables that mean nothing."""
    chosen = dataclasses.asdict(settings())
    changed = {v.name: str(chosen[key]) for key, v in VARIABLES.items()
               if str(chosen[key] if chosen[key] is not None else "") != v.default}  # fmt: skip
    for name, value in changed.items():
        slows = name in ("EFFC_KERNELS", "EFFC_STOP_AFTER")
        remedy = f"unset {name} when you are done: it is for finding defects" if slows else ""
        yield Finding("settings", name, "warning" if slows else "ok", value, remedy)
    for name in unknown_variables():
        near = nearest(name, [variable.name for variable in VARIABLES.values()])
        remedy = f"did you mean {near}?" if near else "see ENVIRONMENT.md"
        yield Finding("settings", name, "warning", "no setting of effc has this name", remedy)
    if not changed:
        yield Finding("settings", "EFFC_*", "ok", "all at their defaults")
