"""`effc schema`: the JSON schema of policies, by which an editor completes them."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.diagnostics import EffcError

TITLE = b'"title": "effc policy"'
"""What tells a schema that may be replaced from a file of the user's."""


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
        if out.exists() and TITLE not in out.read_bytes():
            raise EffcError(
                "E0102",
                "the output exists already, and is no schema of effc",
                where=str(out),
                help="choose another place with -o, or move it away",
            )
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"the schema cannot be written: {reason}"
        raise EffcError("E0103", message, where=str(out), help="name a file") from error
    if json:
        print_json({"output": str(out)})
    else:
        print(f"{out}: begin a policy beside it with '#:schema {out.name}'")
