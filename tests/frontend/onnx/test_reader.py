"""What the reader takes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test.loader
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from effc.frontend.onnx.reader import read_model
from effc.frontend.onnx.structure import LARGEST
from effc.frontend.onnx.views import DEEPEST
from tests.frontend.onnx.files import (
    branches,
    calling,
    model,
    place,
    refused,
    save,
    tiny,
)

ROOT = Path(__file__).parents[3]


def names(read: onnx_ir.Model) -> list[str | None]:
    return [node.name for node in read.graph]


@pytest.mark.parametrize("source", ("file", "text", "folder", "proto", "objects"))
def test_every_form_of_a_model_is_read(source: str, tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", tiny())
    given = {
        "file": path,
        "text": str(path),
        "folder": tmp_path,
        "proto": tiny(),
        "objects": onnx_ir.from_proto(tiny()),
    }
    read = read_model(given[source])
    assert names(read) == ["project", "shift", "clip"]
    expected = numpy_helper.to_array(tiny().graph.initializer[0])
    np.testing.assert_array_equal(read.graph.initializers["w"].const_value.numpy(), expected)


def test_a_folder_means_its_model_or_its_only_file(tmp_path: Path) -> None:
    assert refused(tmp_path).code == "E0301"
    save(tmp_path / "one.onnx", tiny())
    assert names(read_model(tmp_path))
    save(tmp_path / "two.onnx", branches())
    error = refused(tmp_path)
    assert error.code == "E0301" and "one.onnx, two.onnx" in error.message
    save(tmp_path / "model.onnx", calling(("f", ["Relu"])))
    assert len(read_model(tmp_path).functions) == 1


def test_published_models_are_sound() -> None:
    """Nothing that the standard itself tests with may be called damaged."""
    kinds = ("simple", "pytorch-converted", "pytorch-operator")
    cases = [
        case for kind in kinds for case in onnx.backend.test.loader.load_model_tests(kind=kind)
    ]
    sources = [case.model or Path(case.model_dir) / "model.onnx" for case in cases]
    sources += sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
    assert len(sources) > 100
    for source in sources:
        read_model(source)


# Element type -> number of elements and the bytes that they take.
PACKED = {
    "FLOAT": (3, 12), "BFLOAT16": (3, 6), "FLOAT8E4M3FN": (3, 3), "FLOAT8E5M2FNUZ": (3, 3),
    "INT4": (3, 2), "UINT4": (4, 2), "FLOAT4E2M1": (5, 3), "INT2": (5, 2), "UINT2": (8, 2),
    "BOOL": (3, 3), "COMPLEX64": (3, 24), "DOUBLE": (0, 0), "FLOAT8E8M0": (2, 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("elsewhere", (False, True), ids=("inside", "outside"))
def test_every_element_type_must_be_as_long_as_its_shape(
    kind: str, elsewhere: bool, tmp_path: Path
) -> None:
    if kind not in TensorProto.DataType.keys():  # noqa: SIM118 - an enumeration, no mapping
        pytest.skip(f"onnx {onnx.__version__} has no {kind}")
    count, size = PACKED[kind]
    for excess in (-1, 0, 1):
        if size + excess < 0:
            continue
        source, data = tiny(), bytes(size + excess)
        source.graph.initializer.append(
            TensorProto(name="e", dims=[count], data_type=TensorProto.DataType.Value(kind))
        )
        source.graph.initializer[-1].raw_data = data
        if elsewhere:
            (tmp_path / "e.data").write_bytes(data)
            place(source.graph.initializer[-1], "e.data", length=len(data))
        path = save(tmp_path / "model.onnx", source)
        if excess:
            assert refused(path).code == ("E0311" if elsewhere else "E0310")
        else:
            value = read_model(path).graph.initializers["e"].const_value
            assert value.size == count and value.dtype.name == kind


@pytest.mark.parametrize(
    ("kind", "field", "entries"),
    (
        ("FLOAT", "float_data", 6), ("COMPLEX128", "double_data", 12), ("INT64", "int64_data", 6),
        ("UINT32", "uint64_data", 6), ("FLOAT16", "int32_data", 6), ("INT4", "int32_data", 3),
        ("UINT2", "int32_data", 2), ("BOOL", "int32_data", 6),
    ),
)  # fmt: skip
def test_typed_fields_must_be_as_long_as_the_shape(kind: str, field: str, entries: int) -> None:
    if kind not in TensorProto.DataType.keys():  # noqa: SIM118 - an enumeration, no mapping
        pytest.skip(f"onnx {onnx.__version__} has no {kind}")
    for count in (entries - 1, entries, entries + 1):
        source = tiny()
        number = TensorProto.DataType.Value(kind)
        tensor = source.graph.initializer.add(name="e", dims=[2, 3], data_type=number)
        getattr(tensor, field).extend([1] * count)
        if count == entries:
            assert read_model(source).graph.initializers["e"].const_value.numpy().shape == (2, 3)
        else:
            assert f"the file has {count}" in refused(source).message


def test_texts_are_values_too() -> None:
    source = tiny()
    source.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"b"]))
    value = read_model(source).graph.initializers["t"].const_value
    assert value.numpy().tolist() == [b"a", b"b"]


def test_nodes_out_of_order_are_sorted_and_the_others_stay(tmp_path: Path) -> None:
    source = tiny()
    order = [source.graph.node[i] for i in (2, 0, 1)]
    shuffled = model(order, list(source.graph.input), list(source.graph.output),
                     list(source.graph.initializer))  # fmt: skip
    assert names(read_model(save(tmp_path / "a.onnx", shuffled))) == ["project", "shift", "clip"]
    objects = onnx_ir.from_proto(shuffled)
    assert names(read_model(objects)) == ["project", "shift", "clip"]


def test_branches_may_read_what_a_later_node_makes() -> None:
    """The reader of a value is the node around the branch: it comes after the source."""
    source = branches()
    source.graph.node.append(helper.make_node("Neg", ["w"], ["n"], name="late"))
    source.graph.node[0].attribute[0].g.node[0].input[1] = "n"
    assert names(read_model(source)) == ["late", ""]


def _nested(depth: int) -> onnx.ModelProto:
    """Branches within branches."""
    result = branches()
    for _ in range(depth - 1):
        outer = branches()
        for attribute in outer.graph.node[0].attribute:
            attribute.g.node[0].CopyFrom(result.graph.node[0])
            attribute.g.node[0].output[0] = "z"
        result = outer
    return result


def test_graphs_nest_to_a_limit() -> None:
    # Both branches hold the whole rest, so the depth is kept small here and a chain made below.
    assert read_model(_nested(5))
    chain = branches()
    for _ in range(DEEPEST):
        outer = branches()
        outer.graph.node[0].attribute[0].g.node[0].CopyFrom(chain.graph.node[0])
        outer.graph.node[0].attribute[0].g.node[0].output[0] = "z"
        chain = outer
    assert f"nested more than {DEEPEST} deep" in refused(chain).message


def test_functions_may_call_others_but_never_themselves() -> None:
    assert len(read_model(calling(("f", ["g", "Relu"]), ("g", ["Relu"]))).functions) == 2
    error = refused(calling(("f", ["g"]), ("g", ["Relu", "h"]), ("h", ["g"])))
    assert error.code == "E0310" and "calls itself: g -> h -> g" in error.message
    unused = calling(("f", ["Relu"]), ("g", ["g"]))
    assert "calls itself: g -> g" in refused(unused).message


def test_functions_that_double_with_every_call_are_refused_at_once() -> None:
    """30 functions, each of two calls: 2^30 nodes, found without making one."""
    bodies = [(f"f{i}", [f"f{i + 1}"] * 2) for i in range(30)] + [("f30", ["Relu"])]
    assert f"more than {LARGEST} nodes" in refused(calling(*bodies)).message
    deep = [(f"f{i}", [f"f{i + 1}"]) for i in range(2000)] + [("f2000", ["Relu"])]
    assert "more than 32 deep" in refused(calling(*deep)).message


def test_a_file_that_protobuf_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    error = refused(path)
    assert error.code == "E0310" and "save_as_external_data" in (error.help or "")


def test_missing_packages_are_named() -> None:
    code = (
        "import sys; sys.modules['onnx_ir'] = None\n"
        "from effc.frontend.onnx.reader import read_model\n"
        "from effc.diagnostics import ModelError\n"
        "try: read_model('model.onnx')\n"
        "except ModelError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "error[E0301]" in done.stdout and "pip install 'effc[onnx]'" in done.stdout, done.stderr
