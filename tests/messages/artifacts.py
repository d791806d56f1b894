"""Artifacts, prompts, flags and variables that are refused."""

from __future__ import annotations

import json
from pathlib import Path

from tests.messages.case import Case, cut, edit_json, remove, write

RUN = "effc run out --prompt-ids 5,6,7"


def _flip(folder: Path) -> None:
    """Change one bit near the end of the weights."""
    path = folder / "out" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def _old_lock(folder: Path) -> None:
    """As if the artifact had been compiled with another torch and other weights."""
    path = folder / "out" / "policy.lock"
    lock = json.loads(path.read_text())
    lock["environment"]["packages"]["torch"] = "2.0.0"
    lock["inputs"]["model.safetensors"] = "0" * 64
    path.write_text(json.dumps(lock))


def _forge(folder: Path) -> None:
    """Call an operator that reads files, with all digests made to fit."""
    from effc.ir.manifest import encode, sha256

    stage = folder / "out" / "stages" / "decode.json"
    text = stage.read_bytes().replace(b"aten.embedding.default", b"aten.from_file.default")
    stage.write_bytes(text)
    path = folder / "out" / "effc.json"
    data = json.loads(path.read_bytes())
    data["files"]["stages/decode.json"] = {"bytes": len(text), "sha256": sha256(text)}
    data.pop("digest")
    path.write_bytes(encode(data | {"digest": sha256(encode(data))}))


ARTIFACTS = (
    Case("the artifact does not exist", command="effc run uot --prompt-ids 5"),
    Case("the artifact is a checkpoint", command="effc run model --prompt-ids 5"),
    Case("the artifact has no manifest", command=RUN, spoil=remove("out/effc.json")),
    Case("the manifest is no JSON", command=RUN, spoil=write("out/effc.json", "{")),
    Case("the manifest was edited", command=RUN, spoil=edit_json("out/effc.json", page_size=1)),
    Case("the artifact is newer", command=RUN, spoil=edit_json(
        "out/effc.json", format=99, versions={"effc": "7.1", "torch": "4.0"})),
    Case("a stage is missing", command=RUN, spoil=remove("out/stages/decode.json")),
    Case("a stage was edited", command="effc show out", spoil=cut("out/stages/decode.json", -1)),
    Case("a stage calls a foreign operator", command="effc show out", spoil=_forge),
    Case("the weights of the artifact are cut off", command=RUN,
         spoil=cut("out/weights.safetensors", -100)),
    Case("a bit of a weight was flipped", command=RUN, spoil=_flip),
    Case("the report is damaged", command="effc diff out out", spoil=cut("out/report.json", 10)),
    Case("a policy is compared", command="effc diff out out/policy.toml"),
    Case("a format of export is unknown", command="effc export out --to tflite -o model.tflite"),
    Case("there is nothing to verify against", command="effc verify out"),
    Case("there is no lock", "version = 1\n",
         "effc compile model --spec policy.toml --locked -o new"),
    Case("the lock is of another version", command="effc compile model --spec out/policy.toml "
         "--locked -o new", spoil=_old_lock),
    Case("a stage is misspelt", command="effc show out --stage decod"),
)  # fmt: skip

PROMPTS = (
    Case("no prompt is given", command="effc run out"),
    Case("two prompts are given", command="effc run out --prompt a --prompt-ids 1"),
    Case("the prompt's file does not exist", command="effc run out --prompt-file nothing.txt"),
    Case("the prompt's file is not UTF-8", command="effc run out --prompt-file prompt.txt",
         spoil=write("prompt.txt", b"caf\xe9")),
    Case("the token ids are no numbers", command="effc run out --prompt-ids 1,two"),
    Case("a token id is outside the vocabulary", command="effc run out --prompt-ids 5,900"),
    Case("the prompt is longer than the context",
         command="effc run out --prompt-ids " + ",".join(["7"] * 300)),
    Case("a text meets an artifact without a tokenizer", command="effc run out --prompt def"),
    Case("a number of new tokens is negative",
         command="effc run out --prompt-ids 5 --max-new-tokens -3"),
    Case("a probability is above one", command="effc run out --prompt-ids 5 --top-p 1.5"),
)  # fmt: skip

COMMANDS = (
    Case("a command is misspelt", command="effc complie model -o new"),
    Case("a flag is misspelt", command="effc compile model --sepc policy.toml -o new"),
    Case("an argument is missing", command="effc inspect"),
    Case("an argument is too many", command="effc check policy.toml another.toml"),
    Case("a flag has no value", command="effc compile model -o"),
    Case("the output is not named", command="effc compile model"),
    Case("a number is a word", command="effc run out --prompt-ids 5 --top-k many"),
    Case("a method to describe is misspelt", command="effc methods rtm"),
    Case("a schema would replace a policy", command="effc schema -o policy.toml",
         spoil=write("policy.toml", "version = 1\n")),
    Case("a code to explain is cut short", command="effc explain e203"),
    Case("a topic to explain is unknown", command="effc explain everything"),
)  # fmt: skip

ENVIRONMENT = (
    Case("a log level is unknown", command="effc methods", environment={"EFFC_LOG": "loud"}),
    Case("a number of rewrites is negative", command="effc methods",
         environment={"EFFC_STOP_AFTER": "-1"}),
    Case("the folder for programs is a file", command="effc inspect model",
         spoil=write("dump", ""), environment={"EFFC_DUMP": "dump"}),
    Case("the trace's folder does not exist", command="effc inspect model",
         environment={"EFFC_TRACE": "no/where/trace.jsonl"}),
)  # fmt: skip
