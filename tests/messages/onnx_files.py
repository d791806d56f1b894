"""ONNX files that cannot be used, made on the fly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.frontend.onnx.files import branches, calling, external, place, save, tiny
from tests.messages.case import Case, Spoil, both, cut, remove, rule, write

FILE = "model.onnx"
INSPECT = f"effc inspect {FILE}"
COMPILE = f"effc compile {FILE} --spec policy.toml -o new"


def _spoiled(change: Callable[[onnx.ModelProto], object] = bool, base: object = tiny) -> Spoil:
    """Write a sound model after a change."""

    def spoil(folder: Path) -> None:
        model = base()  # type: ignore[operator]
        change(model)
        save(folder / FILE, model)

    return spoil


def _case(wrong: str, change: Callable[[onnx.ModelProto], object], base: object = tiny) -> Case:
    return Case(wrong, command=INSPECT, spoil=_spoiled(change, base))


def _beside(wrong: str, then: Spoil = lambda folder: None, **where: object) -> Case:
    """A case of a model whose first weight is said to lie elsewhere."""

    def spoil(folder: Path) -> None:
        model = external(folder / FILE)
        if where:
            numbers = {key: value for key, value in where.items() if key != "location"}
            location = str(where.get("location", "model.data"))
            place(model.graph.initializer[0], location, **numbers)
            save(folder / FILE, model)
        then(folder)

    return Case(wrong, command=INSPECT, spoil=spoil)


def _future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "s"


def _second_source(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "h"


def _unknown_input(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[1] = "bias"


def _lost_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "logits"


def _short(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 40


def _huge(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 2**40


def _negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def _no_such_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 77


def _negative_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1


def _untyped(model: onnx.ModelProto) -> None:
    model.graph.input[0].ClearField("type")


def _third_input(model: onnx.ModelProto) -> None:
    model.graph.node[0].input.append("b")


def _strange_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("axiss", 1))


def _float_axis(model: onnx.ModelProto) -> None:
    node = model.graph.node[2]
    node.op_type = "Softmax"
    node.attribute.append(helper.make_attribute("axis", 1.5))


def _no_opset(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"
    model.graph.node[0].op_type = "FusedMatMul"


def _unknown_operators(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("acme.secret", 1))
    for node, name in zip(model.graph.node, ("Frobnicate", "Frobnicate", "Defrag"), strict=True):
        node.domain, node.op_type = "acme.secret", name


def _sparse(model: onnx.ModelProto) -> None:
    values = model.graph.initializer.pop(1)
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(values)
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [3], [0, 1, 2]))
    sparse.dims.append(3)


def _not_text(folder: Path) -> None:
    data = tiny().SerializeToString()
    (folder / FILE).write_bytes(data.replace(b"project", b"pr\xff\xfeect"))


def _lost_branch_value(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute[0].g.node[0].input[1] = "nowhere"


def _twice(model: onnx.ModelProto) -> None:
    model.functions.append(model.functions[0])


def _link(folder: Path) -> None:
    (folder / "home").mkdir()
    external(folder / "home" / FILE)
    (folder / "home" / "model.data").rename(folder / "elsewhere")
    (folder / "home" / "model.data").symlink_to("../elsewhere")


def _half_a_gigabyte_too_much(folder: Path) -> None:
    with (folder / FILE).open("wb") as file:
        file.truncate(2**31 + 2**29)


def _several(folder: Path) -> None:
    (folder / "exports").mkdir()
    for name in ("decoder_model", "decoder_with_past_model"):
        save(folder / "exports" / f"{name}.onnx", tiny())


FILES = (
    Case("the ONNX file does not exist", command="effc inspect modell.onnx"),
    Case("the ONNX file is empty", command=INSPECT, spoil=write(FILE, b"")),
    Case("the ONNX file is a pointer to it", command=INSPECT, spoil=write(
        FILE, "version https://git-lfs.github.com/spec/v1\noid sha256:1\n")),
    Case("the ONNX file is something else", command=INSPECT, spoil=write(FILE, b"\x93NUMPY\x01\0")),
    Case("the ONNX file is cut off", command=INSPECT, spoil=both(_spoiled(), cut(FILE, 100))),
    Case("the ONNX file is compiled though it is cut off", rule(), COMPILE,
         spoil=both(_spoiled(), cut(FILE, 100))),
    Case("the ONNX file holds no graph", command=INSPECT, spoil=write(FILE, b"\x08\x07")),
    Case("the ONNX file is larger than protobuf allows", command=INSPECT,
         spoil=_half_a_gigabyte_too_much),
    Case("the ONNX file has a name that is no text", command=INSPECT, spoil=_not_text),
    Case("there are several ONNX files", spoil=_several,
         python="from effc.frontend.onnx.reader import read_model\nread_model('exports')"),
    _case("the operators come from the future", _future),
    _case("the file format comes from the future", lambda m: setattr(m, "ir_version", 99)),
    _case("a domain has no version", _no_opset),
    Case("operators are unknown", rule(), COMPILE, spoil=_spoiled(_unknown_operators)),
    _case("the graph has a cycle", _cycle),
    _case("a value has two sources", _second_source),
    _case("a value has no source", _unknown_input),
    _case("a branch reads a value without a source", _lost_branch_value, branches),
    _case("an output has no source", _lost_output),
    _case("an input has no type", _untyped),
    _case("an input has a negative size", _negative_size),
    _case("a function calls itself", bool,
          lambda: calling(("Outer", ["Inner"]), ("Inner", ["Relu", "Outer"]))),
    _case("a function is defined twice", _twice, lambda: calling(("Twice", ["Relu"]))),
    _case("a tensor has less data than its shape says", _short),
    _case("a tensor claims to be huge", _huge),
    _case("a tensor has a negative size", _negative),
    _case("a tensor has a type that does not exist", _no_such_type),
    _case("a tensor is sparse", _sparse),
    _case("a node has an input too many", _third_input),
    _case("a node has an attribute that does not exist", _strange_attribute),
    _case("an attribute has the wrong type", _float_axis),
    _beside("the external data is missing", remove("model.data")),
    _beside("the external data is cut off", cut("model.data", 40)),
    _beside("the external data is as long as another model says", length=47),
    _beside("the external data begins where no number says", offset="ten"),
    _beside("the external data lies in the folder above", location="../../.ssh/id_rsa"),
    _beside("the external data lies anywhere", location="/etc/passwd"),
    _beside("the external data is no file", location="model"),
    Case("the external data is a link to elsewhere", command=f"effc inspect home/{FILE}",
         spoil=_link),
)  # fmt: skip
