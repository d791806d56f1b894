"""External data: mapped where it may be used, and never looked at where it may not."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from effc.frontend.onnx.reader import read_model
from tests.frontend.onnx.files import FLOAT, external, place, refused, save, tiny


def test_external_weights_are_mapped_and_not_read(tmp_path: Path) -> None:
    """A file of 4 GiB, all holes: reading it would show in the memory of the process."""
    source = tiny()
    rows = 2**28
    source.graph.initializer.append(TensorProto(name="huge", dims=[rows, 4], data_type=FLOAT))
    place(source.graph.initializer[-1], "huge.data", length=rows * 16)
    path = save(tmp_path / "model.onnx", source)
    with (tmp_path / "huge.data").open("wb") as file:
        file.truncate(rows * 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensor = read_model(path).graph.initializers["huge"].const_value
    assert isinstance(tensor, onnx_ir.ExternalTensor) and tensor.raw is None
    assert tensor.numpy()[rows - 1].tolist() == [0.0] * 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_external_weights_have_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    external(tmp_path / "model.onnx", data="weights/model.data", lead=64)
    monkeypatch.chdir(tmp_path)
    read = read_model("model.onnx")
    objects = onnx_ir.load("model.onnx")
    assert read_model(objects) is objects
    monkeypatch.chdir("/")
    expected = numpy_helper.to_array(tiny().graph.initializer[0])
    for each in (read, objects):
        weight = each.graph.initializers["w"].const_value
        np.testing.assert_array_equal(weight.numpy(), expected)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    external(tmp_path / "model.onnx")
    (tmp_path / "model.data").rename(tmp_path / "real.data")
    (tmp_path / "model.data").symlink_to("real.data")
    assert read_model(tmp_path).graph.initializers["w"].const_value.numpy()[0, 0] == -5


@pytest.mark.parametrize(
    "location",
    (
        "../secret", "a/../../secret", "/etc/passwd", "C:\\secret", "\\\\host\\secret",
        "..\\secret", "link", "folder/secret", "hard", "pipe", "sub", ".", "", "none",
        "model.data\0", "x" * 5000, "*/_ORT_MEM_ADDR_/*",
    ),
)  # fmt: skip
@pytest.mark.parametrize("form", ("initializer", "attribute", "objects"))
def test_no_file_outside_the_folder_is_opened(location: str, form: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(48))
    (home / "own").write_bytes(bytes(48))
    (home / "link").symlink_to("../secret")
    (home / "folder").symlink_to("..")
    (home / "hard").hardlink_to(home / "own")
    os.mkfifo(home / "pipe")
    source = tiny()
    tensor = source.graph.initializer[0]
    if form == "attribute":
        constant = helper.make_node("Constant", [], ["w"], value=source.graph.initializer.pop(0))
        source.graph.node.insert(0, constant)
        tensor = source.graph.node[0].attribute[0].t
    place(tensor, location, length=48)
    path = save(home / "model.onnx", source)
    if form == "objects":
        objects = onnx_ir.load(path)
        assert refused(objects).code == "E0311"
    else:
        assert refused(path).code == ("E0311" if location else "E0310")


@pytest.mark.parametrize(
    ("numbers", "code"),
    (
        ({"offset": -1}, "E0310"), ({"offset": "1e3"}, "E0310"), ({"offset": 2**64}, "E0310"),
        ({"length": "0x10"}, "E0310"), ({"offset": 61}, "E0311"), ({"length": 47}, "E0311"),
        ({"length": 2**40}, "E0311"), ({"offset": 2**62, "length": 48}, "E0311"),
        ({"offset": 12}, ""), ({"length": 48}, ""), ({"checksum": "abc"}, ""),
    ),
)  # fmt: skip
def test_extents_lie_within_the_file(numbers: dict[str, object], code: str, tmp_path: Path) -> None:
    source = external(tmp_path / "model.onnx")
    place(source.graph.initializer[0], "model.data", **numbers)
    path = save(tmp_path / "model.onnx", source)
    if code:
        assert refused(path).code == code
    else:
        assert read_model(path)


def test_an_object_has_no_folder(tmp_path: Path) -> None:
    error = refused(external(tmp_path / "model.onnx"))
    assert error.code == "E0311" and "path of the ONNX file" in (error.help or "")
