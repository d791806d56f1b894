"""`effc schema`: the JSON schema of policies, by which an editor completes them."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.diagnostics import EffcError


def schema(
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to this file.")
    ] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Print the JSON schema of policies, for editors."""
    from effc.passes.registry import method_infos
    from effc.spec.json_schema import json_schema

    text = json_text.dumps(json_schema(method_infos()), indent=1, ensure_ascii=False)
    if out is None:
        print(text)
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"the schema cannot be written: {reason}"
        raise EffcError("E0103", message, where=str(out), help="name a file") from error
    if json:
        print_json({"output": str(out)})
    else:
        print(f"{out}: begin a policy beside it with '#:schema {out.name}'")
