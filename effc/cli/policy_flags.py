"""The flags of every command that takes a policy.

Fragments are merged in the order presets, `--spec`, `--set`; see `effc.spec.parse.load_policy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecFlag = Annotated[
    Path | None, typer.Option("--spec", help="The policy; without one nothing is compressed.")
]

PresetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="A policy that ships with effc, read before the policy; may be given several times.",
    ),
]

SetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one key last, e.g. quantize.0.bits=8; may be given several times.",
    ),
]
