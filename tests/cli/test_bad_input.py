"""What a user reads after a mistake: file, place, reason, remedy; and nothing is left behind.

Everything goes through the command line and the real compiler, over a real checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from effc.cli import main
from tests.e2e.families import FAMILIES

POLICY = """version = 1

[[quantize]]
where = "linear"
method = "rtn"
bits = 8
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    FAMILIES[0].save(folder)
    return folder


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    (folder / "policy.toml").write_text(POLICY)
    out = folder / "out"
    arguments = ["compile", str(checkpoint), "--spec", str(folder / "policy.toml"), "-o", str(out)]
    assert main(arguments) == 0
    return out


@pytest.fixture
def work(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `model` and `policy.toml`, to be spoiled."""
    shutil.copytree(checkpoint, tmp_path / "model")
    (tmp_path / "policy.toml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**changes: object) -> Callable[[Path], None]:
    """Spoil a checkpoint by changing entries of its configuration."""

    def spoil(work: Path) -> None:
        path = work / "model" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def weights(size: int | None) -> Callable[[Path], None]:
    """Spoil a checkpoint by cutting its weights, or removing them."""

    def spoil(work: Path) -> None:
        path = work / "model" / "model.safetensors"
        content = path.read_bytes()[:size]
        path.unlink()
        if size is not None:
            path.write_bytes(content)

    return spoil


def policy(old: str, new: str) -> Callable[[Path], None]:
    """Spoil the policy."""

    def spoil(work: Path) -> None:
        path = work / "policy.toml"
        path.write_text(path.read_text().replace(old, new))

    return spoil


def text(name: str, content: str) -> Callable[[Path], None]:
    """Overwrite a file."""
    return lambda work: (work / name).write_text(content) and None


def no_model(work: Path) -> None:
    """Remove the checkpoint."""
    shutil.rmtree(work / "model")


def empty_model(work: Path) -> None:
    """Empty the checkpoint's folder."""
    no_model(work)
    (work / "model").mkdir()


def output_exists(work: Path) -> None:
    """Put something of the user's where the output should go."""
    (work / "out").mkdir()
    (work / "out" / "thesis.tex").write_text("years of work")


SAME = "help: config.json and the weights must come from the same model\n"
AGAIN = "help: download or save it again\n"

COMPILE: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "policy-not-toml": (
        policy("version = 1", "version 1"),
        2,
        "policy.toml:1:9: error[E0201]: not valid TOML: a key needs an equals sign and a value\n"
        "    1 | version 1\n      |         ^\nhelp: write KEY = VALUE\n",
    ),
    "policy-unknown-key": (
        policy("[[quantize]]", "[targt]\n[[quantize]]"),
        2,
        "policy.toml:3:2: error[E0202]: unknown key 'targt' in the policy\n"
        "    3 | [targt]\n      |  ^^^^^\nhelp: did you mean 'target'? allowed: "
        "draft, kv, quality, quantize, stream, target, tokens, version\n",
    ),
    "policy-unknown-option": (
        policy("bits", "bit"),
        2,
        "policy.toml:6:1: error[E0203]: unknown option 'bit' for method \"rtn\"\n"
        "    6 | bit = 8\n      | ^^^\nhelp: did you mean 'bits'? allowed: "
        "activations, bits, gate, group, method, optional, symmetric, where\n",
    ),
    "policy-unknown-method": (
        policy('"rtn"', '"rtm"'),
        2,
        'policy.toml:5:10: error[E0204]: unknown method "rtm" in [[quantize]]\n'
        '    5 | method = "rtm"\n      |          ^^^^^\n'
        "help: did you mean 'rtn'? allowed: rtn\n",
    ),
    "policy-wrong-type": (
        policy("bits = 8", 'bits = "eight"'),
        2,
        "policy.toml:6:8: error[E0205]: option 'bits' of method \"rtn\" takes 8, 4, 3 or 2, "
        'found "eight"\n    6 | bits = "eight"\n      |        ^^^^^^^\n',
    ),
    "policy-wrong-unit": (
        policy("[[quantize]]", '[target]\nmemory = "3 gib"\n[[quantize]]'),
        2,
        "policy.toml:4:13: error[E0207]: unknown unit 'gib'\n"
        '    4 | memory = "3 gib"\n      |             ^^^\n'
        "help: did you mean 'GiB'? allowed: %, GB, GiB, KB, KiB, MB, MiB\n",
    ),
    "policy-bad-selector": (
        policy('"linear"', '"liner"'),
        2,
        "policy.toml:4:10: error[E0206]: unknown word 'liner' in the selector\n"
        "    4 | where = \"liner\"\n      |          ^^^^^\nhelp: did you mean 'linear'? allowed: "
        "all, attention, conv, embedding, experts, heads, kv_heads, layer, layers, linear, name, "
        "norm, params, stage, width\n",
    ),
    "policy-missing": (
        lambda work: (work / "policy.toml").unlink(),
        2,
        "policy.toml: error[E0210]: the policy cannot be read: there is no such file\n"
        "help: give the path of a TOML file\n",
    ),
    "rule-matches-nothing": (
        policy('"linear"', '"linear and layer > 40"'),
        4,
        'policy.toml:4:9: error[E0401]: [[quantize]] where = "linear and layer > 40" matches none '
        "of 33 sites; nearest miss: model.layers.0.self_attn.q_proj: layer is 0, the rule asks "
        'for layer > 40\n    4 | where = "linear and layer > 40"\n',
    ),
    "model-missing": (
        no_model,
        2,
        "model: error[E0301]: the model does not exist\n"
        "help: give a Hugging Face folder: config.json, weights and tokenizer\n",
    ),
    "model-empty": (
        empty_model,
        2,
        "model: error[E0301]: the folder has no config.json\n"
        "help: give the folder that save_pretrained wrote\n",
    ),
    "model-config-broken": (
        text("model/config.json", "{"),
        2,
        "model/config.json:1:2: error[E0301]: config.json is no valid JSON\n"
        "    1 | {\n      |  ^\nhelp: repair it, or download it again\n",
    ),
    "model-unknown-type": (
        config(model_type="llamma"),
        2,
        "model/config.json: error[E0302]: transformers does not know the model_type 'llamma'\n"
        "help: did you mean 'llama'? update transformers, or use a supported architecture\n",
    ),
    "model-remote-code": (
        config(model_type="mine", auto_map={"AutoConfig": "mine.Config"}),
        2,
        "model/config.json: error[E0303]: the model type 'mine' asks for code from its own folder "
        "('auto_map')\n"
        "help: effc never runs code from a model folder; use an architecture of transformers\n",
    ),
    "weights-missing": (
        weights(None),
        2,
        "model: error[E0301]: the folder has a config.json but no weights (model.safetensors, "
        "model.safetensors.index.json or pytorch_model.bin)\n"
        "help: download the weights, or save the model with save_pretrained\n",
    ),
    "weights-empty": (
        weights(0),
        2,
        "model/model.safetensors: error[E0305]: the file is empty\n" + AGAIN,
    ),
    "weights-truncated": (
        weights(5000),
        2,
        "model/model.safetensors: error[E0305]: the file is cut off: it has 5000 bytes of ",
    ),
    "weights-of-another-width": (
        config(intermediate_size=128),
        2,
        "model: error[E0304]: 9 tensors have another shape than the configuration asks for: "
        "model.layers.0.mlp.down_proj.weight is [64, 96], config.json implies [64, 128]; ",
    ),
    "weights-of-fewer-layers": (
        config(num_hidden_layers=4),
        2,
        "model: error[E0304]: 9 of 39 tensors are missing from the checkpoint: "
        "model.layers.3.self_attn.q_proj.weight; model.layers.3.self_attn.k_proj.weight; "
        "model.layers.3.self_attn.v_proj.weight; model.layers.3.self_attn.o_proj.weight; "
        "and 5 more\n" + SAME,
    ),
    "output-exists": (
        output_exists,
        2,
        "out: error[E0102]: the output exists already\n"
        "help: choose another place with -o, or give --force to replace an artifact\n",
    ),
}


@pytest.mark.parametrize("name", COMPILE)
def test_compile_refuses(name: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, exit_code, expected = COMPILE[name]
    spoil(work)
    before = sorted(p.relative_to(work) for p in work.rglob("*"))
    assert main(["compile", "model", "--spec", "policy.toml", "-o", "out"]) == exit_code
    said = capsys.readouterr()
    steps, found, _ = said.err.partition(expected)
    assert found, said.err
    assert set(steps.splitlines()) <= {"loading the compiler", "capturing the model", "planning"}
    assert "error" not in said.out and "Traceback" not in said.err
    assert sorted(p.relative_to(work) for p in work.rglob("*")) == before


def test_force_never_replaces_what_is_no_artifact(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output_exists(work)
    arguments = ["compile", "model", "--spec", "policy.toml", "-o", "out", "--force"]
    assert main(arguments) == 2
    assert "--force does not replace it" in capsys.readouterr().err
    assert (work / "out" / "thesis.tex").read_text() == "years of work"


def flip_a_byte(out: Path) -> None:
    """Change one bit near the end of the weights."""
    path = out / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def drop_a_tensor(out: Path) -> None:
    """Write the weights again without one of them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(out / "weights.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, out / "weights.safetensors")


def from_the_future(out: Path) -> None:
    """Claim a newer format."""
    path = out / "effc.json"
    content = json.loads(path.read_text())
    content["format"] = 99
    path.write_text(json.dumps(content))


SPOILED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "flipped-byte": (flip_a_byte, "E0603", "are not as they were written"),
    "missing-tensor": (drop_a_tensor, "E0603", "weights.safetensors"),
    "newer-version": (from_the_future, "E0602", "has format 99"),
    "missing-stage": (lambda out: (out / "stages" / "decode.json").unlink(), "E0603", "decode"),
    "no-artifact": (lambda out: (out / "effc.json").unlink(), "E0601", "effc.json"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_run_refuses_a_damaged_artifact(
    name: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, code, words = SPOILED[name]
    shutil.copytree(artifact, tmp_path / "out")
    spoil(tmp_path / "out")
    assert main(["run", str(tmp_path / "out"), "--prompt-ids", "5,6,7"]) == 2
    said = capsys.readouterr().err
    assert f"error[{code}]" in said and words in said and "help: " in said


RUN: dict[str, tuple[list[str], str]] = {
    "prompt-longer-than-the-context": (
        ["--prompt-ids", ",".join(["7"] * 300)],
        "input_ids, row 0: error[E0701]: the prompt has 300 tokens and the context of the model "
        "256\nhelp: cut the prompt to its last 256 tokens or fewer\n",
    ),
    "token-outside-the-vocabulary": (
        ["--prompt-ids", "5,900"],
        "input_ids, row 0, column 1: error[E0702]: token id 900 lies outside the vocabulary of "
        "0..198\nhelp: tokenize the prompt with the tokenizer of this model\n",
    ),
    "text-without-a-tokenizer": (
        ["--prompt", "def"],
        "{artifact}: error[E0101]: the artifact has no tokenizer, so a text cannot be its prompt\n"
        "help: give token ids: --prompt-ids 1,2,3\n",
    ),
    "no-prompt": (
        [],
        "error[E0101]: there is no prompt\n"
        "help: give exactly one of --prompt, --prompt-file, --prompt-ids\n",
    ),
}


@pytest.mark.parametrize("name", RUN)
def test_run_refuses(name: str, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = RUN[name]
    assert main(["run", str(artifact), *arguments]) == 2
    assert capsys.readouterr().err == expected.replace("{artifact}", str(artifact))


def test_errors_as_json(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(artifact), "--prompt-ids", "900", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "E0702" and error["help"]
