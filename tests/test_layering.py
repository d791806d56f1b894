"""Imports go one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("effc", "passes", "runtime", "kernels", "spec")
ML = ("torch",)

# Folder or file -> what it may import: packages from outside, modules of effc by prefix. The
# longest matching entry counts. What is not listed may not be imported; `None` sees everything.
ALLOWED: dict[str, tuple[str, ...] | None] = {
    "effc.compiler": None,
    "effc.compilation": None,
    "effc.canonical": None,
    "effc.pipeline": None,
    "effc.rewriting": None,
    "effc.gating": None,
    "effc.inspection": None,
    "effc.tokenizer": ("tokenizers", "effc.diagnostics", "effc.ir.program"),
    "effc.api": None,
    "effc.cli": None,
    "effc.lm_eval": (
        "lm_eval",
        "effc.api",
        "effc.evaluate",
        "effc.ir.manifest",
        "effc.diagnostics",
    ),
    "effc.report": None,
    "effc.lock": None,
    "effc.dynamo": None,
    "effc.dynamo_graph": (*ML, "effc.diagnostics"),
    "effc": (
        "effc.api",
        "effc.diagnostics",
        "effc.importing",
        "effc.ir.program",
        "effc.spec.schema",
    ),
    "effc.ops": ("effc.kernels",),
    "effc.diagnostics": (),
    "effc.settings": ("effc.diagnostics",),
    "effc.progress": ("effc.ir.manager",),
    "effc.trace": ("effc.diagnostics", "effc.settings", "effc.ir.journal"),
    "effc.explain": ("effc.diagnostics", "effc.passes.registry", "effc.spec.schema"),
    "effc.doctor": (
        *ML,
        "packaging",
        "effc.diagnostics",
        "effc.settings",
        "effc.ops",
        "effc.kernels.registry",
    ),
    "effc.difference": ("effc.diagnostics", "effc.ir", "effc.runtime.loader", "effc.ops"),
    "effc.cost": (
        *ML,
        "effc.cost",
        "effc.ir",
        "effc.diagnostics",
        "effc.kernels.paged.formats",
        "effc.passes.registry",
        "effc.passes.caching.insert_cache",
        "effc.runtime.session",
        "effc.spec",
    ),
    "effc.ir": (*ML, "networkx", "sympy", "effc.ir", "effc.diagnostics"),
    "effc.spec": ("lark", "effc.spec", "effc.diagnostics"),
    "effc.kernels": (*ML, "numpy", "effc.kernels", "effc.diagnostics"),
    "effc.passes": (
        *ML,
        "effc.passes",
        "effc.ir",
        "effc.diagnostics",
        "effc.kernels.attention.op",
        "effc.kernels.registry",
        "effc.kernels.paged.formats",
        "effc.kernels.packing",
        "effc.spec.schema",
        "effc.spec.options",
    ),
    "effc.runtime": (
        *ML,
        "safetensors",
        "effc.runtime",
        "effc.ir",
        "effc.kernels",
        "effc.ops",
        "effc.diagnostics",
    ),
    "effc.runtime.images": (*ML, "numpy", "PIL", "effc.runtime", "effc.ir", "effc.diagnostics"),
    "effc.frontend": (
        *ML,
        "effc.frontend",
        "effc.ir",
        "effc.diagnostics",
        "effc.settings",
        "effc.ops",
    ),
    "effc.frontend.onnx": (
        *ML,
        "onnx",
        "onnx_ir",
        "google.protobuf",
        "numpy",
        "ml_dtypes",
        "effc.frontend",
        "effc.ir",
        "effc.kernels.packing",
        "effc.diagnostics",
        "effc.settings",
        "effc.ops",
    ),
    "effc.importing": ("effc.ir.program", "effc.runtime.executable", "effc.frontend", "effc.ops"),
    "effc.frontend.huggingface": (
        *ML,
        "transformers",
        "safetensors",
        "effc.frontend",
        "effc.ir",
        "effc.diagnostics",
        "effc.settings",
        "effc.ops",
    ),
    # The library's own model as a subject of evaluation.
    "effc.frontend.huggingface.original": (
        *ML,
        "transformers",
        "effc.evaluate",
        "effc.frontend.huggingface",
        "effc.ir",
        "effc.runtime.images",
        "effc.diagnostics",
    ),
    "effc.frontend.huggingface.ablated": (
        *ML,
        "transformers",
        "numpy",
        "effc.evaluate",
        "effc.ir",
        "effc.diagnostics",
    ),
    "effc.evaluate": (
        *ML,
        "numpy",
        "effc.evaluate",
        "effc.ir",
        "effc.runtime",
        "effc.kernels.paged.formats",
        "effc.spec.plan",
        "effc.spec.schema",
        "effc.diagnostics",
        "effc.progress",
    ),
    "effc.evaluate.tasks": ("numpy", "effc.evaluate.tasks", "effc.diagnostics"),
    "effc.export": (
        *ML,
        "effc.export",
        "effc.ir",
        "effc.diagnostics",
        "effc.settings",
        "effc.ops",
        "effc.progress",
        "effc.kernels",
        "sympy",
        "torch_mlir",
    ),
    "effc.export.onnx": (
        *ML,
        "numpy",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "effc.export",
        "effc.ir",
        "effc.diagnostics",
        "effc.settings",
        "effc.kernels",
    ),
}  # fmt: skip


def files() -> Iterator[tuple[str, Path]]:
    """Module name and path of every source file; the links inside effc/ are not followed."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if folder == "effc" and relative.parts[1] in FOLDERS[1:]:
                continue
            parts = relative.with_suffix("").parts
            parts = parts if folder == "effc" else ("effc", *parts)
            yield ".".join(p for p in parts if p != "__init__"), path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def allowed_for(module: str) -> tuple[str, ...] | None:
    return ALLOWED[max((k for k in ALLOWED if under(module, k)), key=len)]


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def is_allowed(name: str, module: str) -> bool:
    import sys

    allowed = allowed_for(module)
    if allowed is None or name.split(".")[0] in sys.stdlib_module_names:
        return True
    if under(name, "triton"):
        return module.endswith(".triton")
    return any(under(name, prefix) for prefix in allowed)


SOURCES = dict(files())


@pytest.mark.parametrize("folder", sorted({".".join(name.split(".")[:2]) for name in SOURCES}))
def test_imports_go_one_way(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module} may not import {name}"
        for module, path in SOURCES.items()
        if ".".join(module.split(".")[:2]) == folder
        for line, name in imports(path)
        if not is_allowed(name, module)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "module", "allowed"),
    (
        ("torch", "effc.spec.plan", False),
        ("lark.Lark", "effc.spec.language", True),
        ("effc.runtime.engine", "effc.passes.caching.insert_cache", False),
        ("effc.passes.registry", "effc.runtime.engine", False),
        ("effc.kernels.attention.op", "effc.ir.verify", False),
        ("triton.language", "effc.kernels.quantized_linear.triton", True),
        ("triton", "effc.kernels.quantized_linear.op", False),
        ("transformers.AutoConfig", "effc.frontend.huggingface.frontend", True),
        ("transformers", "effc.frontend.torch.frontend", False),
        ("effc.runtime.engine", "effc.compiler", True),
        ("dataclasses", "effc.diagnostics", True),
    ),
)
def test_the_table_means_what_it_says(name: str, module: str, allowed: bool) -> None:
    assert is_allowed(name, module) == allowed


def test_the_sibling_folders_are_no_packages() -> None:
    """`kernels` is also the name of a package that transformers looks for."""
    for folder in FOLDERS[1:]:
        assert not (ROOT / folder / "__init__.py").exists()
    below = {path.parent for f in FOLDERS[1:] for path in (ROOT / f).glob("*/**/*.py")}
    assert all((folder / "__init__.py").exists() for folder in below)
