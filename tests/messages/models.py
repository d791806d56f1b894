"""Models and outputs that cannot be compiled."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

from tests.messages.case import Case, both, config, cut, remove, rule, table, write

COMPILE = "effc compile model -o new"
INSPECT = "effc inspect model"

RULES = (
    Case("no layer is that far up", rule(where='"linear and layer > 40"'),
         "effc compile model --spec policy.toml -o new", exit_code=4),
    Case("no module has this name", rule(where="'name(\"*.mlp.upp_proj\")'"),
         "effc compile model --spec policy.toml -o new", exit_code=4),
    Case("the model has no experts", rule(where='"experts"'),
         "effc compile model --spec policy.toml -o new", exit_code=4),
    Case("the method cannot act on these sites", rule(where='"norm"'),
         "effc compile model --spec policy.toml -o new", exit_code=4),
)  # fmt: skip


def _empty(folder: Path) -> None:
    shutil.rmtree(folder / "model")
    (folder / "model").mkdir()


def _no_tensors(folder: Path, *names: str) -> None:
    """Write the weights again without some of them."""
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    save_file({n: t.clone() for n, t in tensors.items() if n not in names}, path)


def _no_norm(folder: Path) -> None:
    _no_tensors(folder, "model.norm.weight")


def _extra(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    save_file(load_file(path) | {"model.layers.9.mlp.up_proj.weight": torch.ones(2, 2)}, path)


def _nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, path)


def _pickle_with_code(folder: Path) -> None:
    import torch

    (folder / "model" / "model.safetensors").unlink()
    torch.save({"model.norm.weight": _Surprise()}, folder / "model" / "pytorch_model.bin")


class _Surprise:
    """Pickles that are no tensors run code when they are read."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.getcwd, ()


def _recurrent(folder: Path) -> None:
    """A checkpoint of a state-space model."""
    from transformers import MambaConfig, MambaForCausalLM

    shutil.rmtree(folder / "model")
    sizes = {"vocab_size": 32, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}
    MambaForCausalLM(MambaConfig(**sizes)).save_pretrained(folder / "model")


def _missing_shard(folder: Path) -> None:
    model = folder / "model"
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"model.norm.weight": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


MODELS = (
    Case("the model does not exist", command="effc compile modle -o new"),
    Case("the model is a file", command="effc compile model/config.json -o new"),
    Case("the model is an empty folder", command=INSPECT, spoil=_empty),
    Case("the model is an artifact", command="effc inspect out"),
    Case("the configuration is no JSON", command=INSPECT, spoil=write("model/config.json", "{")),
    Case("the configuration names no architecture", command=INSPECT,
         spoil=write("model/config.json", "{}")),
    Case("the architecture is unknown", command=INSPECT, spoil=config(model_type="llamma")),
    Case("the architecture needs its own code", command=INSPECT,
         spoil=config(model_type="mine", auto_map={"AutoConfig": "mine.Config"})),
    Case("the model is an encoder and a decoder", command=INSPECT,
         spoil=write("model/config.json", '{"model_type": "t5", "d_model": 64, "num_layers": 1}')),
    Case("the model is recurrent", command=INSPECT, spoil=_recurrent),
    Case("the checkpoint is already quantized", command=INSPECT,
         spoil=config(quantization_config={"quant_method": "gptq", "bits": 4})),
    Case("the positions scale with the length", command=INSPECT,
         spoil=config(rope_parameters={"rope_type": "dynamic", "factor": 2.0,
                                       "rope_theta": 10000.0})),
    Case("the weights are missing", command=COMPILE, spoil=remove("model/model.safetensors")),
    Case("a shard is missing", command=COMPILE, spoil=_missing_shard),
    Case("the weights are empty", command=COMPILE, spoil=cut("model/model.safetensors", 0)),
    Case("the weights are cut off", command=COMPILE, spoil=cut("model/model.safetensors", 5000)),
    Case("the weights are a pointer to them", command=COMPILE, spoil=write(
        "model/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n")),
    Case("the weights are a pickle that holds code", command=COMPILE, spoil=_pickle_with_code),
    Case("a tensor is missing", command=COMPILE, spoil=_no_norm),
    Case("tensors are of another width", command=COMPILE, spoil=config(intermediate_size=128)),
    Case("tensors of a layer are missing", command=COMPILE, spoil=config(num_hidden_layers=4)),
    Case("a weight holds NaN", rule("bits = 4"), "effc compile model --spec policy.toml -o new",
         spoil=_nan),
    Case("the tokenizer is damaged", python="effc.optimize('model').tokenizer",
         spoil=write("model/tokenizer.json", "{")),
)  # fmt: skip


def _claimed(folder: Path) -> None:
    """Another compilation holds the output until this process ends."""
    fcntl.flock(os.open(folder / ".new.lock", os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)


OUTPUTS = (
    Case("another compilation writes there", command=COMPILE, spoil=_claimed),
    Case("something is at the output", command="effc compile model -o notes",
         spoil=both(lambda f: (f / "notes").mkdir(), write("notes/thesis.tex", "years of work"))),
    Case("force is given over other work", command="effc compile model -o notes --force",
         spoil=both(lambda f: (f / "notes").mkdir(), write("notes/thesis.tex", "years of work"))),
    Case("the output's folder does not exist", command="effc compile model -o no/where/new"),
    Case("the target's GPU kernels take other inputs",
         rule('activations = "int8"\n\n[target]\ndevice = "cuda"'),
         "effc compile model --spec policy.toml -o new"),
    Case("the model does not fit", table("target", 'memory = "100 KiB"\ncontext = 256'),
         "effc compile model --spec policy.toml -o new"),
    Case("a gate cannot hold", rule("bits = 2\n\n[quality]\ntokens = 64\nmax_kl = 0.0",
                                    where="'name(\"lm_head\")'"),
         "effc compile model --spec policy.toml -o new", exit_code=3),
    Case("the evaluation text does not exist",
         rule('bits = 8\n\n[quality]\ndata = "heldout.txt"\nmax_kl = 0.05'),
         "effc compile model --spec policy.toml -o new"),
)  # fmt: skip

PYTHON = (
    Case("a module has no example", python="effc.optimize(torch.nn.Linear(4, 2))"),
    Case("a module does not take the example",
         python="effc.optimize(torch.nn.Linear(4, 2), example_inputs=(ids, ids))"),
    Case("a model is a number", python="effc.optimize(3)"),
    Case("a policy is a number", python="effc.optimize('model', spec=3)"),
    Case("an entry of a dict is misspelt",
         python="effc.optimize('model', spec={'target': {'contxt': 512}})"),
    Case("a generation argument is misspelt", python="fast.generate(ids, temprature=0.7)"),
    Case("a temperature is negative",
         python="fast.generate(ids, do_sample=True, temperature=-1.0)"),
    Case("the ids have one dimension", python="fast.generate(ids[0])"),
    Case("the ids are floats", python="fast.generate(ids.float())"),
    Case("the padding is on the right",
         python="fast.generate(ids, attention_mask=torch.tensor([[1, 1, 0]]))"),
    Case("a function is asked to generate",
         python="linear = torch.nn.Linear(4, 2)\n"
                "effc.optimize(linear, example_inputs=(torch.ones(3, 4),)).generate(ids)"),
)  # fmt: skip
