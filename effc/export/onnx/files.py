"""ONNX files, alone or with their weights beside them, whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import onnx_ir as ir

from effc.export.disk import cannot_write, flush_folder

# Weights beyond this many bytes go to a file of their own. A protobuf ends at 2 GiB, and readers
# copy what is inside it while they map what is beside it.
EXTERNAL_BYTES = 256 * 2**20

# What is smaller stays inside: shapes, scalars, norms are read by tools without the weights.
INSIDE_BYTES = 1024


def save(model: ir.Model, path: Path, *, external: bool | None) -> list[Path]:
    """Write a model in the place of `path`.

    The model names the file of its weights, so a pair is exchanged by the rename of the model: new
    weights get a name that the old model does not use, and are there before it.

    Args:
        model: what to write.
        path: of the model; weights go to `<name>.data` beside it.
        external: whether weights get their own file; None decides by their size.

    Returns:
        The files written.

    Raises:
        ArtifactError: E0103 when they cannot be written.
    """
    final = Path(os.path.realpath(path))
    if external is None:
        external = weight_bytes(model) > EXTERNAL_BYTES
    folder = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    data, others = _data_names(final)
    try:
        folder.mkdir()
        part = folder / final.name
        if external:
            ir.save(model, part, external_data=data.name, size_threshold_bytes=INSIDE_BYTES)
        else:
            ir.save(model, part)
        external = (folder / data.name).exists()
        for file in folder.iterdir():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        if external:
            (folder / data.name).replace(data)
        part.replace(final)
        for old in others if external else (*others, data):
            old.unlink(missing_ok=True)
        flush_folder(final.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [final, data] if external else [final]


def _data_names(final: Path) -> tuple[Path, list[Path]]:
    """A name for the weights that is free, and the one that is not."""
    names = [final.with_name(f"{final.name}.data"), final.with_name(f"{final.name}.1.data")]
    taken = [name for name in names if name.exists()]
    free = [name for name in names if name not in taken] or names[:1]
    return free[0], [name for name in taken if name != free[0]]


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all weights."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
