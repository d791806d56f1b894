"""Checkpoint files as lazy weights, under the names that the model's modules use.

Tensors are memory-mapped; a weight that the library stores differently (experts one by one, fused
projections) is converted by the library's own rules, when it is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from effc.diagnostics import ModelError
from effc.frontend.huggingface.configuration import read_json
from effc.ir.weights import Derivation, Weight

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_POINTER = b"version https://git-lfs"
_LONGEST_HEADER = 100 * 2**20  # what the format allows


def open_checkpoint(folder: Path) -> dict[str, Weight]:
    """All tensors of a checkpoint folder, unread.

    Raises:
        ModelError: E0301 without weights, E0305 if a file is damaged.
    """
    if (folder / _INDEX).is_file():
        shards = sorted(set(_weight_map(folder / _INDEX).values()))
        tensors: dict[str, Weight] = {}
        for shard in shards:
            tensors.update(_open_safetensors(_inside(folder, shard)))
        return tensors
    if (folder / _SINGLE).is_file():
        return _open_safetensors(folder / _SINGLE)
    if (folder / _PICKLED).is_file():
        return _open_pickled(folder / _PICKLED)
    raise ModelError(
        "E0301",
        f"the folder has a config.json but no weights ({_SINGLE}, {_INDEX} or {_PICKLED})",
        where=str(folder),
        help="download the weights, or save the model with save_pretrained",
    )


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict):
        raise ModelError(
            "E0305",
            "the index of the shards has no 'weight_map'",
            where=str(index),
            help="download it again",
        )
    return {str(k): str(v) for k, v in found.items()}


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise ModelError(
            "E0301",
            f"the shard {name!r} named in {_INDEX} is missing",
            where=str(folder),
            help="download the missing file",
        )
    return path


def _open_safetensors(path: Path) -> dict[str, Weight]:
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        message, help = _damage(path)
        raise ModelError("E0305", message, where=str(path), help=help) from error
    weights = {}
    for name in handle.keys():  # noqa: SIM118 - safe_open is no mapping
        piece = handle.get_slice(name)
        weights[name] = Weight(
            tuple(piece.get_shape()),
            _torch_dtype(str(piece.get_dtype()), path, name),
            _reader(handle, name, path),
            f"{path.name}:{name}",
        )
    return weights


def _damage(path: Path) -> tuple[str, str]:
    """What is wrong with a file that is no safetensors file, and the remedy."""
    size, again = path.stat().st_size, "download or save it again"
    with path.open("rb") as file:
        head = file.read(len(_POINTER))
        if head == _POINTER:
            return "the file is a pointer of Git LFS, not the weights", "fetch them: git lfs pull"
        if not size:
            return "the file is empty", again
        length = int.from_bytes(head[:8], "little")
        if length > _LONGEST_HEADER:
            return "the file is no safetensors file", again
        file.seek(8)
        header = file.read(length)
    try:
        ends = [entry["data_offsets"][1] for entry in json.loads(header).values()
                if "data_offsets" in entry]  # fmt: skip
        needed = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        needed = 8 + length
    if size < needed:
        return f"the file is cut off: it has {size} bytes of at least {needed}", again
    return "the header of the file is damaged", again


def _reader(handle: Any, name: str, path: Path) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        try:
            return handle.get_tensor(name)
        except Exception as error:
            raise ModelError(
                "E0305",
                f"tensor {name!r} cannot be read ({type(error).__name__})",
                where=str(path),
                help="see that the file stays as it is while the model is compiled",
            ) from error

    return read


def _torch_dtype(name: str, path: Path, tensor: str) -> torch.dtype:
    table = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
    if name not in table:
        raise ModelError(
            "E0304",
            f"tensor {tensor!r} has the element type {name}, which is not supported",
            where=str(path),
            help="save the checkpoint in bfloat16, float16 or float32",
        )
    return table[name]


def _open_pickled(path: Path) -> dict[str, Weight]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # torch's own text advises to read the file unsafely.
        code = re.search(r"(?i)unsupported global:? (?:GLOBAL )?(\S+)", str(error))
        found = f"they name {code[1]}, which is code and no tensor" if code else "they are damaged"
        raise ModelError(
            "E0305",
            f"the pickled weights cannot be read safely: {found}",
            where=str(path),
            help="convert them to safetensors on a machine where you trust them",
        ) from error
    return {k: Weight.of(v, f"{path.name}:{k}") for k, v in state.items() if torch.is_tensor(v)}


def match_to_model(
    model: Any, checkpoint: Mapping[str, Weight], dtype: torch.dtype, place: str
) -> dict[str, Weight]:
    """The model's parameters and persistent buffers as weights from the checkpoint.

    Args:
        model: a transformers model, its tensors not filled in.
        checkpoint: from `open_checkpoint`.
        dtype: floating-point weights become this type.
        place: for messages.

    Raises:
        ModelError: E0304 names missing tensors and shapes that differ.
    """
    expected = dict(model.state_dict())
    found = _convert(model, checkpoint, expected)
    tied = _tied_names(model)
    missing = [n for n in expected if n not in found and n not in tied]
    if missing:
        raise ModelError(
            "E0304",
            f"{len(missing)} of {len(expected)} tensors are missing from the checkpoint: "
            f"{_some(missing)}",
            where=place,
            help="config.json and the weights must come from the same model",
        )
    wrong = [
        f"{n} is {list(w.shape)}, config.json implies {list(expected[n].shape)}"
        for n, w in found.items()
        if tuple(expected[n].shape) != w.shape
    ]
    if wrong:
        raise ModelError(
            "E0304",
            f"{len(wrong)} tensors have another shape than the configuration asks for: "
            f"{_some(wrong)}",
            where=place,
            help="config.json and the weights must come from the same model",
        )
    return {name: _cast(weight, dtype) for name, weight in found.items()}


def _some(items: list[str]) -> str:
    shown = "; ".join(items[:4])
    return shown if len(items) <= 4 else f"{shown}; and {len(items) - 4} more"


def _cast(weight: Weight, dtype: torch.dtype) -> Weight:
    if not weight.dtype.is_floating_point or weight.dtype == dtype:
        return weight
    return weight.map(lambda t: t.to(dtype), shape=weight.shape, dtype=dtype, origin=weight.origin)


def _tied_names(model: Any) -> set[str]:
    """Names whose tensor is also known under another name that comes first."""
    seen: dict[int, str] = {}
    tied = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            tied |= {name, seen[id(parameter)]}
        seen.setdefault(id(parameter), name)
    return tied


def _convert(
    model: Any, checkpoint: Mapping[str, Weight], expected: dict[str, torch.Tensor]
) -> dict[str, Weight]:
    """Apply the library's renaming and conversion rules without reading a tensor."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {p: rule for rule in converters for p in rule.source_patterns}
    prefix = model.base_model_prefix
    found: dict[str, Weight] = {}
    pending: dict[str, tuple[Any, list[tuple[str, str, Weight]]]] = {}
    for key in sorted(checkpoint, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, expected)
        if name not in expected and key in expected:
            name, pattern = key, None
        if name not in expected:
            continue
        if pattern is None:
            found[name] = checkpoint[key]
        else:
            rule, sources = pending.setdefault(name, (by_pattern[pattern], []))
            sources.append((key, pattern, checkpoint[key]))
    for name, (rule, sources) in pending.items():
        found.update(_converted(model, name, rule, sources, expected))
    return found


def _converted(
    model: Any,
    name: str,
    rule: Any,
    sources: list[tuple[str, str, Weight]],
    expected: Mapping[str, torch.Tensor],
) -> dict[str, Weight]:
    """The results of one conversion rule, computed together when the first one is read."""

    def compute() -> dict[str, torch.Tensor]:
        fresh = deepcopy(rule)
        for key, pattern, weight in sources:
            fresh.add_tensor(name, key, pattern, weight.load)
        results = fresh.convert(name, model=model, config=model.config)
        return {n: (t[0] if isinstance(t, list) else t) for n, t in results.items()}

    first = rule.target_patterns[0]
    names = [name.replace(first, pattern) for pattern in rule.target_patterns]
    derivation = Derivation(compute)
    dtype = sources[0][2].dtype
    origin = ", ".join(key for key, _, _ in sources[:2]) + (", ..." if len(sources) > 2 else "")
    return {
        n: derivation.weight(n, tuple(expected[n].shape), dtype, origin)
        for n in names
        if n in expected
    }
