"""effc: an efficiency compiler for trained models.

    import effc
    fast = effc.optimize("path/to/checkpoint", spec="policy.toml")
    fast.generate(ids, max_new_tokens=64)

Importing the package loads nothing heavy; names are resolved when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING

if not (_Path(__file__).parent / "passes").is_dir():  # a checkout whose links were lost
    __path__.append(str(_Path(__file__).parent.parent))

if TYPE_CHECKING:
    from effc.api import CompiledModel, load, optimize
    from effc.diagnostics import EffcError
    from effc.importing import import_onnx
    from effc.ir.program import Program
    from effc.spec.schema import Policy

_PUBLIC = {
    "CompiledModel": "effc.api",
    "EffcError": "effc.diagnostics",
    "Policy": "effc.spec.schema",
    "Program": "effc.ir.program",
    "import_onnx": "effc.importing",
    "load": "effc.api",
    "optimize": "effc.api",
}

__all__ = ["CompiledModel", "EffcError", "Policy", "Program", "import_onnx", "load", "optimize"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'effc' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
