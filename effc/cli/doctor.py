"""`effc doctor`: what this machine can do, and what to install."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.diagnostics import ExitCode

if TYPE_CHECKING:
    from effc.doctor import Finding, KernelState


def doctor(json: JsonFlag = False, debug: DebugFlag = False) -> int:
    """Say what this machine can do; exits with 5 if something that effc needs is broken."""
    from effc.doctor import examine, kernel_states

    findings = examine()
    kernels, problem = kernel_states()
    findings += [problem] if problem else []
    broken = [finding for finding in findings if finding.fatal]
    if json:
        print_json(
            {
                "ok": not broken,
                "findings": [dataclasses.asdict(finding) for finding in findings],
                "kernels": [dataclasses.asdict(state) for state in kernels],
            }
        )
    else:
        _print(findings, kernels)
        names = ", ".join(finding.name for finding in broken)
        print(f"\neffc cannot work here: {names}" if broken else "\neffc can work here")
    return ExitCode.TARGET if broken else ExitCode.DONE


def _print(findings: list[Finding], kernels: list[KernelState]) -> None:
    width = max(len(finding.name) for finding in findings)
    for area in dict.fromkeys(finding.area for finding in findings):
        print(area)
        for finding in findings:
            if finding.area == area:
                print(f"  {finding.status:<8} {finding.name:<{width}}  {finding.found}")
                if finding.remedy:
                    print(f"  {'':<8} {'':<{width}}  -> {finding.remedy}")
    if kernels:
        print("kernels, best first")
        devices = tuple(dict.fromkeys(state.device for state in kernels))
        print_table(("  operator", *devices), _kernel_rows(kernels, devices))


def _kernel_rows(kernels: list[KernelState], devices: tuple[str, ...]) -> list[tuple[str, ...]]:
    cells: dict[str, dict[str, list[KernelState]]] = {}
    for state in kernels:
        cells.setdefault(state.operator, {}).setdefault(state.device, []).append(state)
    return [
        (f"  {operator}", *(_cell(states.get(device, [])) for device in devices))
        for operator, states in cells.items()
    ]


def _cell(states: list[KernelState]) -> str:
    """The kernels of an operator on a device, and what keeps them from running here."""
    names = ", ".join(state.kernel for state in states)
    reasons = dict.fromkeys(state.reason for state in states if state.reason)
    return f"{names} (not here: {'; '.join(reasons)})" if reasons else names
