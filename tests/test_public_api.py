"""What users rely on."""

from __future__ import annotations

import inspect

import pytest

import effc

NAMES = {"CompiledModel", "EffcError", "Policy", "Program", "import_onnx", "load", "optimize"}


def test_public_names() -> None:
    assert set(effc.__all__) == set(effc._PUBLIC) == NAMES
    assert set(dir(effc)) >= NAMES
    for name in NAMES:
        assert getattr(effc, name).__name__ == name
        assert inspect.getdoc(getattr(effc, name))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'effc' has no attribute 'compile'"):
        effc.compile  # noqa: B018


def test_optimize_takes_what_the_design_says() -> None:
    parameters = list(inspect.signature(effc.optimize).parameters)
    assert parameters[:4] == ["model", "spec", "tokenizer", "example_inputs"]


@pytest.mark.parametrize("name", ("__call__", "generate", "save", "export", "report", "engine"))
def test_compiled_model_has(name: str) -> None:
    described = {**vars(effc.CompiledModel), "report": effc.CompiledModel.__doc__}
    assert name in described
    assert "report:" in str(effc.CompiledModel.__doc__)


def test_all_errors_are_one_family() -> None:
    import effc.diagnostics as d

    errors = [c for c in vars(d).values() if inspect.isclass(c) and issubclass(c, Exception)]
    assert len(errors) > 8
    assert all(issubclass(error, effc.EffcError) for error in errors)
