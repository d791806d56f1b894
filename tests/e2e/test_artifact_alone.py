"""The graph is the model: an artifact runs where the libraries that made it cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

import effc
from tests.e2e.families import FAMILIES

PROGRAM = """
import sys, json

BLOCKED = {"transformers", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "lark", "triton"}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import torch
import effc
model = effc.load(sys.argv[1])
ids = torch.tensor(json.loads(sys.argv[2]))
print(json.dumps(model.generate(ids, max_new_tokens=12).tolist()))
"""


def test_an_artifact_generates_without_the_libraries_that_made_it(tmp_path: Path) -> None:
    FAMILIES[0].save(tmp_path / "model")
    rule = {"where": "linear or embedding", "method": "rtn"}
    model = effc.optimize(tmp_path / "model", spec={"quantize": [rule]})
    model.save(tmp_path / "out")
    ids = torch.randint(5, 199, (1, 9))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out"), json.dumps(ids.tolist())]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == model.generate(ids, max_new_tokens=12).tolist()
