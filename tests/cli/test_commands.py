"""The commands: what they print, what they pass on, and the codes they end with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effc.cli import main
from effc.diagnostics import (
    EffcError,
    InternalError,
    ModelError,
    NoMatchError,
    PolicyError,
    TargetError,
)
from effc.export.claim import Output
from effc.progress import Progress
from effc.spec.schema import Policy

Install = Callable[..., None]
RUN = "import sys; from effc.cli import main; sys.exit(main())"


@dataclass
class Verdict:
    pass_name: str
    matched: int
    applied: int
    skipped: int
    bytes_before: int
    bytes_after: int
    seconds: float
    status: str
    detail: str = ""
    kl: float | None = None


def _compilation() -> SimpleNamespace:
    return SimpleNamespace(
        program=SimpleNamespace(weights=SimpleNamespace(nbytes=3 << 20)),
        verdicts=[
            Verdict("fuse-rms-norm", 4, 4, 0, 12 << 20, 12 << 20, 0.01, "no change"),
            Verdict("quantize-weights", 120, 118, 2, 12 << 20, 3 << 20, 1.5, "changed", "2 small"),
        ],
        report={"kl": 0.01},
        lock={"inputs": {"model.safetensors": "ab"}},
        notes=["nothing was measured"],
    )


@pytest.fixture
def written(install: Install) -> list[dict[str, Any]]:
    """Calls of `compile_model` and `write_artifact`."""
    calls: list[dict[str, Any]] = []

    def compile_model(source: Path, policy: Policy, *, progress: Progress) -> Any:
        progress.step("capturing", "the model")
        done = _compilation()
        progress.verdict(done.verdicts[0])  # the other one comes without having been announced
        calls.append({"source": source, "policy": policy})
        return done

    def write_artifact(program: Any, out: Output, **arguments: Any) -> Any:
        arguments.pop("progress").advance("w", 1, 2)
        calls.append({"out": out.path, "claimed": out.lock.exists(), **arguments})
        return SimpleNamespace(digest="cd", digests={"a": "1", "b": "2"}, reused=1)

    install("effc.compiler", compile_model=compile_model)
    install("effc.report", render_html=lambda report: f"<p>{report['kl']}</p>")
    install("effc.export.package", write_artifact=write_artifact)
    return calls


def test_compile_prints_a_line_per_pass_in_columns(
    written: list[dict[str, Any]], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = out.with_name("p.toml")
    spec.write_text("version = 1\n[target]\ncontext = 16\nbatch = 3\n")
    flags = ["--preset", "int8", "--spec", str(spec), "--set", "target.context=8"]
    assert main(["compile", "model", "-o", str(out), "--force", *flags]) == 0
    text, errors = capsys.readouterr()
    assert errors.splitlines() == [
        "loading the compiler",
        "capturing the model",
        f"writing {out}",
        "warning: 2 of 120 places were left as they are (quantize-weights: 2 small)",
    ]
    lines = text.splitlines()
    assert [" ".join(line.split()) for line in lines[:3]] == [
        "pass matched applied skipped bytes time KL status detail",
        "fuse-rms-norm 4 4 0 - 0.01 s - no change",
        "quantize-weights 120 118 2 12.0 MiB -> 3.0 MiB 1.50 s - changed 2 small",
    ]
    right = ("matched", "applied", "skipped", "bytes", "time", "KL")
    ends = [lines[0].index(word) + len(word) for word in right]
    for line in lines[:3]:
        assert all(line[end - 1] != " " and line[end] == " " for end in ends)
    assert lines[3] == "note: nothing was measured"
    assert lines[4] == "1 of 2 tensors were finished already"
    assert lines[5].startswith(f"{out}: 3.0 MiB of weights, ")
    policy = written[0]["policy"]
    assert written[0]["source"] == Path("model")
    assert (policy.target.context, policy.target.batch) == (8, 3)
    assert [rule.options["bits"] for rule in policy.quantize] == [8]
    assert written[1] == {
        "out": out,
        "claimed": True,
        "policy_text": policy.text,
        "lock": {"inputs": {"model.safetensors": "ab"}},
        "report": {"kl": 0.01},
        "html": "<p>0.01</p>",
        "resume": True,
        "locked": None,
    }


def test_compile_without_policy_writes_none(written: list[dict[str, Any]], out: Path) -> None:
    assert main(["compile", "model", "-o", str(out), "--json"]) == 0
    assert written[0]["policy"] == Policy()
    assert written[1]["policy_text"] is None


def test_compile_prints_one_json_object(
    written: list[dict[str, Any]], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "model", "-o", str(out), "--json"]) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    data = json.loads(text)
    assert data["output"] == str(out)
    assert data["weight_bytes"] == 3 << 20
    assert [v["applied"] for v in data["verdicts"]] == [4, 118]
    assert data["report"] == {"kl": 0.01}
    assert (data["reused"], data["tensors"], data["weights"]) == (1, 2, "cd")
    assert data["peak_memory"] > 1 << 20


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def show_plan(model: Path, policy: dict[str, Any], *, as_json: bool) -> None:
        print(model, policy["presets"], as_json)

    install("effc.cli.plan", show_plan=show_plan)
    assert main(["compile", "m", "--preset", "int8", "--dry-run"]) == 0
    assert capsys.readouterr().out == "m ('int8',) False\n"
    assert main(["compile", "m", "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    assert capsys.readouterr().out == "m () True\n"
    assert not list(tmp_path.iterdir())


def test_a_wrong_policy_is_refused_before_any_work(
    install: Install, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("effc.compiler", compile_model=_raising(AssertionError("must not be called")))
    assert main(["compile", "model", "-o", str(out), "--set", "target.contex=8"]) == 2
    text, errors = capsys.readouterr()
    assert text == "" and "error[E0202]" in errors.splitlines()[0]
    assert not list(out.parent.iterdir())


def test_an_existing_output_is_refused_before_any_work(
    install: Install, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile_model(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("must not be called")

    install("effc.compiler", compile_model=compile_model)
    out.mkdir()
    (out / "thesis.tex").touch()
    for flags in ([], ["--force"]):
        assert main(["compile", "model", "-o", str(out), *flags]) == 2
        assert "error[E0102]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyError("E0202", "unknown key"), 2),
        (ModelError("E0301", "no model", where="m", help="give one"), 2),
        (NoMatchError("E0401", "no site"), 4),
        (TargetError("E0502", "no GPU"), 5),
        (InternalError("E0901", "a defect"), 1),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_refusal_has_its_code(
    install: Install,
    error: EffcError,
    code: int,
    as_json: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install("effc.inspection", inspect_model=_raising(error))
    assert main(["inspect", "m", *(["--json"] if as_json else [])]) == code
    text, errors = capsys.readouterr()
    if as_json:
        assert json.loads(text) == {"error": error.to_dict()}
        assert errors == ""
    else:
        assert (text, errors) == ("", error.render() + "\n")


def test_an_unexpected_exception_is_one_line(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("effc.inspection", inspect_model=_raising(ValueError("odd\nand long")))
    assert main(["inspect", "m"]) == 1
    text, errors = capsys.readouterr()
    assert text == ""
    assert errors.splitlines() == [
        "error[E0901]: internal error: ValueError: odd",
        "help: run again with --debug for the traceback",
    ]
    assert main(["inspect", "m", "--debug"]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert "run again" not in errors
    assert main(["inspect", "m", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E0901"


def test_an_interrupt_ends_quietly(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("effc.inspection", inspect_model=_raising(KeyboardInterrupt()))
    assert main(["inspect", "m"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def _raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    "arguments",
    [["compil"], ["compile"], ["compile", "m"], ["run", "o", "--top-k", "x"], ["--nope"], []],
)
def test_a_wrong_command_line_is_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().out == ""
    if arguments:
        assert main([*arguments, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "E0101"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("effc ")
    for command in ("compile", "run", "inspect", "show", "check", "methods"):
        assert main([command, "--help"]) == 0
        assert "--json" in capsys.readouterr().out


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EFFC_LOG", "loud")
    assert main(["methods"]) == 2
    assert "EFFC_LOG: error[E0104]" in capsys.readouterr().err


def test_inspect_puts_equal_layers_together(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = [
        {"kind": "linear", "name": f"layers.{i}.up", "layer": i, "shape": [8, 4], "params": 32}
        for i in range(12)
    ]
    sites[11] = sites[11] | {"shape": [8, 8], "params": 64}
    facts = {"family": "llama", "bytes": 2048, "sites": sites}
    install("effc.inspection", inspect_model=lambda source: facts)
    assert main(["inspect", "m"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bytes:", "2.0", "KiB"] in lines
    assert lines[-2][:5] == ["11", "layers.*.up", "linear", "8x4", "32"]
    assert lines[-1][:5] == ["1", "layers.*.up", "linear", "8x8", "64"]
    assert main(["inspect", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts


def test_methods_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    assert "rtn" in capsys.readouterr().out
    assert main(["methods", "rtn"]) == 0
    assert "bits" in capsys.readouterr().out
    assert main(["methods", "rtn", "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)["methods"]
    assert described["table"] == "quantize"
    assert main(["methods", "rtm"]) == 2
    assert "did you mean 'rtn'" in capsys.readouterr().err


def test_check_reads_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('version = 1\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\nbits = 4\n')
    bad.write_text('version = 1\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\nbit = 4\n')
    assert main(["check", str(good)]) == 0
    assert "valid, 1 rule\n  quantize: rtn where linear, bits = 4" in capsys.readouterr().out
    assert main(["check", str(good), "--json"]) == 0
    (rule,) = json.loads(capsys.readouterr().out)["rules"]
    assert rule["options"] == {"bits": 4}
    assert main(["check", str(bad)]) == 2
    assert "bad.toml:5:1: error[E0203]" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none.toml"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E0210"


def test_check_loads_nothing_heavy(tmp_path: Path) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text('version = 1\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\n')
    heavy = "('torch', 'numpy', 'transformers', 'tokenizers', 'triton', 'rich', 'networkx')"
    code = (
        "import sys; from effc.cli import main; code = main(['check', sys.argv[1]])\n"
        f"sys.exit(code or ' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(policy)], check=True, capture_output=True)


def test_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "methods"], stdout=pipe, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (141, b"")
