"""ONNX files as models whose structure can be relied on.

What comes out has one source for every value, no cycles, literal data as long as its shape says,
operators of known versions, and external data that lies in the model's own folder. Weights are
not read: what is external stays in its file and is memory-mapped when somebody asks for it.
"""

from __future__ import annotations

import importlib.util
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from effc.diagnostics import ModelError
from effc.frontend.onnx.damage import AGAIN, damaged

if TYPE_CHECKING:
    import onnx
    import onnx_ir

_LARGEST = 2**31 - 1  # bytes of one protobuf message
_SUFFIX = ".onnx"
_DEFAULT = "model.onnx"

# First bytes -> what a file really is, and the remedy.
_FOREIGN = {
    b"version https://git-lfs": ("a pointer of Git LFS, not the model", "fetch it: git lfs pull"),
    b"PK\x03\x04": ("a zip archive or a PyTorch file", "give the ONNX file itself"),
    b"\x89HDF": ("an HDF5 file", "export the model to ONNX first"),
    b"GGUF": ("a GGUF file", "export the model to ONNX first"),
    b"<": ("a web page or another text", "download the model again"),
    b"{": ("JSON text", "save the model in the binary form: onnx.save"),
}
_ORT_FORMAT = b"ORTM"  # at byte 4


def read_model(source: str | Path | onnx.ModelProto | onnx_ir.Model) -> onnx_ir.Model:
    """Read and check an ONNX model.

    Args:
        source: a file, a folder that holds `model.onnx` or one other .onnx file, or a model in
            memory. Nodes that stand before what they read are sorted, in place.

    Returns:
        The model; external weights are `onnx_ir.ExternalTensor`, unread.

    Raises:
        ModelError: E0301 for what is no ONNX file, E0310 for a damaged one, E0311 if external data
            is missing, too short or outside the model's folder, E0302 for versions from the
            future and sparse tensors.
    """
    _require_packages()
    import onnx
    import onnx_ir

    if isinstance(source, onnx_ir.Model):
        from effc.frontend.onnx.checks import check_objects

        check_objects(source, "the given onnx_ir.Model")
        return source
    if isinstance(source, onnx.ModelProto):
        return _convert(source, None, "the given ModelProto")
    if not isinstance(source, str | Path):
        message = f"an ONNX model is a path, a ModelProto or an onnx_ir.Model, not {source!r:.80}"
        raise ModelError("E0301", message, help="give the path of the .onnx file")
    path = find_file(Path(source))
    return _convert(_parse(path), path.parent, str(path))


def find_file(path: Path) -> Path:
    """The ONNX file that a path means: itself, or the one in a folder.

    Raises:
        ModelError: E0301, there is none, or several and none is called model.onnx.
    """
    try:
        if path.is_file():
            return path
        if not path.is_dir():
            what = "is no regular file" if path.exists() else "does not exist"
            raise _unreadable(path, f"the model {what}", "give the path of an .onnx file")
        files = sorted(entry for entry in path.glob(f"*{_SUFFIX}") if entry.is_file())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unreadable(path, f"the path cannot be used: {reason}", AGAIN) from error
    if path / _DEFAULT in files:
        return path / _DEFAULT
    if len(files) == 1:
        return files[0]
    if not files:
        raise _unreadable(path, "the folder has no .onnx file", "give the path of the file")
    names = ", ".join(file.name for file in files)
    message = f"the folder has {len(files)} ONNX files, none called {_DEFAULT}: {names}"
    raise _unreadable(path, message, "give the path of one of them")


def _unreadable(path: Path, message: str, help: str) -> ModelError:
    return ModelError("E0301", message, where=str(path), help=help)


def _require_packages() -> None:
    missing = [name for name in ("onnx", "onnx_ir") if not _is_installed(name)]
    if missing:
        message = f"reading ONNX models needs packages that are not installed: {', '.join(missing)}"
        raise ModelError("E0301", message, help="pip install 'effc[onnx]'")


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    data = _read_bytes(path)
    if not data:
        raise damaged(str(path), "the file is empty")
    for head, (what, help) in _FOREIGN.items():
        if data.startswith(head):
            raise damaged(str(path), f"the file is {what}", help)
    if data[4:8] == _ORT_FORMAT:
        help = "give the .onnx file that it was made from"
        raise damaged(str(path), "the file has onnxruntime's own format (.ort)", help)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        message = f"the file is cut off or no ONNX file ({len(data)} bytes were read)"
        raise damaged(str(path), message) from error
    return model


def _read_bytes(path: Path) -> bytes:
    try:
        facts = path.stat()
        if stat.S_ISREG(facts.st_mode) and facts.st_size <= _LARGEST:
            return path.read_bytes()
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        raise _unreadable(path, message, "see that it exists and may be read") from error
    raise damaged(
        str(path),
        f"the file has {facts.st_size} bytes; ONNX files end at {_LARGEST} bytes (2 GB)",
        "save the weights beside the model: onnx.save(model, path, save_as_external_data=True)",
    )


def _convert(model: onnx.ModelProto, folder: Path | None, place: str) -> onnx_ir.Model:
    import onnx_ir

    from effc.frontend.onnx.checks import check_file, external_tensors
    from effc.frontend.onnx.old_opsets import modernized

    check_file(model, folder, place)
    try:
        result = onnx_ir.from_proto(modernized(model, place))
    except ModelError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {str(cause).strip()[:200]}"
        raise damaged(place, f"the model cannot be read ({reason})") from error
    if folder is not None:
        for graph in (result.graph, *(body.graph for body in result.functions.values())):
            for tensor in external_tensors(graph):
                tensor.base_dir = str(folder.absolute())
    return result
