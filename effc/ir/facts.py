"""What a program is besides its graphs and weights, as JSON.

The facts stand in the manifest: the model, the stages with their inputs and outputs, the layout of
the cache, the schedule and the loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from effc.ir import literals, opset, untrusted
from effc.ir.program import (
    CacheSite,
    ModelInfo,
    Program,
    RetentionGroup,
    ScheduleEntry,
    Stage,
)
from effc.ir.serialize import input_from_json, input_to_json
from effc.ir.weights import Weights

FACTS = (
    "model",
    "device",
    "threads",
    "loop",
    "page_size",
    "stages",
    "cache",
    "schedule",
    "kernels",
    "notes",
)

STAGE_FOLDER = "stages"
MODEL_FOLDER = "model"

DEVICES = ("cpu", "cuda")
LOOPS = ("none", "autoregressive")
MOMENTS = ("after_prefill", "every", "over_budget", "each_step")

Read = Callable[[object, str], Any]


def facts_to_json(program: Program) -> dict[str, object]:
    """The facts of a program, with the fields of `FACTS`."""
    return {
        "model": _model_to_json(program.info),
        "device": program.device,
        "threads": program.threads,
        "loop": program.loop,
        "page_size": program.page_size,
        "stages": [_stage_to_json(stage) for stage in program.stages.values()],
        "cache": {
            "sites": [vars(site) for site in program.cache_sites],
            "groups": [vars(group) for group in program.groups],
        },
        "schedule": [vars(entry) for entry in program.schedule],
        "kernels": {name: kernel_counts(stage) for name, stage in program.stages.items()},
        "notes": [untrusted.printable(note) for note in program.notes],
    }


def program_from_facts(
    facts: Mapping[str, Any], stages: list[Stage], weights: Weights, folder: Path
) -> Program:
    """A program put together again.

    Args:
        facts: what `facts_to_json` wrote.
        stages: the stages that the facts name, in their order.
        weights: the state.
        folder: where the artifact lies; its model files are named from there.

    Raises:
        ArtifactError: E0603 when facts and stages disagree, or for anything that
            `facts_to_json` does not write.
    """
    where = str(folder)
    for entry, stage in zip(facts["stages"], stages, strict=True):
        _check_stage(entry, stage, f"{where}: stage {stage.name}")
    cache = untrusted.fields(facts["cache"], f"{where}: cache", ("sites", "groups"))
    sites = untrusted.array(cache["sites"], f"{where}: cache.sites")
    notes = untrusted.array(facts["notes"], f"{where}: notes")
    program = Program(
        stages={stage.name: stage for stage in stages},
        weights=weights,
        info=_model_from_json(facts["model"], folder),
        cache_sites=tuple(_record(CacheSite, site, _SITE, where) for site in sites),
        groups=tuple(
            _record(RetentionGroup, group, _GROUP, where)
            for group in untrusted.array(cache["groups"], f"{where}: cache.groups")
        ),
        schedule=tuple(
            _record(ScheduleEntry, entry, _SCHEDULE, where)
            for entry in untrusted.array(facts["schedule"], f"{where}: schedule")
        ),
        page_size=untrusted.integer(facts["page_size"], f"{where}: page_size", 1, 1 << 20),
        threads=_optional(_count)(facts["threads"], f"{where}: threads"),
        device=untrusted.choice(facts["device"], f"{where}: device", DEVICES),
        loop=untrusted.choice(facts["loop"], f"{where}: loop", LOOPS),
        notes=[untrusted.text(note, f"{where}: notes") for note in notes],
    )
    _check_cache(program, where)
    return program


def stage_files(facts: Mapping[str, object], where: str) -> list[str]:
    """The files of the stages, in order."""
    entries = untrusted.array(facts["stages"], f"{where}: stages")
    if not entries:
        untrusted.damaged("a program needs a stage", f"{where}: stages")
    names = (untrusted.mapping(entry, f"{where}: stages").get("name") for entry in entries)
    return [f"{STAGE_FOLDER}/{untrusted.identifier(name, where)}.json" for name in names]


def _stage_to_json(stage: Stage) -> dict[str, object]:
    inputs = [input_to_json(spec) for spec in stage.inputs]
    return {"name": stage.name, "inputs": inputs, "outputs": list(stage.outputs)}


def _check_stage(data: object, stage: Stage, where: str) -> None:
    entry = untrusted.fields(data, where, ("name", "inputs", "outputs"))
    inputs = [input_from_json(i, where) for i in untrusted.array(entry["inputs"], where)]
    same = entry["name"] == stage.name and entry["outputs"] == list(stage.outputs)
    if not same or tuple(inputs) != stage.inputs:
        untrusted.damaged("manifest and stage file disagree about inputs or outputs", where)


def kernel_counts(stage: Stage) -> dict[str, dict[str, int]]:
    """Operator -> kernel -> number of calls, for people; the choice itself is on the node."""
    counts: dict[str, Counter[str]] = {}
    for node in stage.graph.nodes:
        if kernel := node.meta.get("kernel"):
            name = opset.name_of(node.target) or str(node.target)
            counts.setdefault(name, Counter())[kernel] += 1
    return {name: dict(counter) for name, counter in counts.items()}


def _model_to_json(info: ModelInfo) -> dict[str, object]:
    return {
        "family": info.family,
        "source": untrusted.printable(info.source),
        "context": info.context,
        "vocabulary": info.vocabulary,
        "dtype": literals.dtype_name(info.dtype),
        "eos": list(info.eos),
        "bos": info.bos,
        "pad": info.pad,
        "image_token": info.image_token,
        "image_tokens": info.image_tokens,
        "files": sorted(info.files),
    }


def _model_from_json(data: object, folder: Path) -> ModelInfo:
    where = f"{folder}: model"
    # Artifacts from before there were models that see do not name these two.
    unseen = {"image_token": None, "image_tokens": None}
    entry = untrusted.fields(unseen | untrusted.mapping(data, where), where, _MODEL)
    values = {name: read(entry[name], f"{where}.{name}") for name, read in _MODEL.items()}
    files = {name: folder / MODEL_FOLDER / name for name in values.pop("files")}
    return ModelInfo(**values, files=files)


def _record(kind: type[Any], data: object, table: Mapping[str, Read], where: str) -> Any:
    """A dataclass from an object with exactly the fields of `table`."""
    entry = untrusted.fields(data, f"{where}: {kind.__name__}", table)
    return kind(**{k: read(entry[k], f"{where}: {kind.__name__}.{k}") for k, read in table.items()})


def _check_cache(program: Program, where: str) -> None:
    groups = [group.name for group in program.groups]
    if len(set(groups)) != len(groups):
        untrusted.damaged("two retention groups have one name", where)
    for position, site in enumerate(program.cache_sites):
        if site.index != position or site.group not in groups:
            untrusted.damaged(f"cache site {position} has a wrong index or group", where)


def _count(data: object, where: str) -> int:
    return untrusted.integer(data, where, low=1)


def _token(data: object, where: str) -> int:
    return untrusted.integer(data, where, low=0)


def _optional(read: Read) -> Read:
    return lambda data, where: None if data is None else read(data, where)


def _several(read: Read) -> Read:
    return lambda data, where: tuple(read(item, where) for item in untrusted.array(data, where))


def _arguments(data: object, where: str) -> dict[str, object]:
    items = untrusted.mapping(data, where).items()
    return {untrusted.identifier(key, where): _plain(value, where) for key, value in items}


def _plain(data: object, where: str) -> object:
    if isinstance(data, str):
        return untrusted.text(data, where)
    if data is not None and type(data) not in (bool, int, float):
        untrusted.damaged("an argument must be a text, a number, true, false or null", where)
    return data


_MODEL: dict[str, Read] = {
    "family": untrusted.text,
    "source": untrusted.text,
    "context": _optional(_count),
    "vocabulary": _optional(_count),
    "dtype": literals.read_dtype,
    "eos": _several(_token),
    "bos": _optional(_token),
    "pad": _optional(_token),
    "image_token": _optional(_token),
    "image_tokens": _optional(_count),
    "files": _several(untrusted.file_name),
}
_SITE: dict[str, Read] = {
    "index": _token,
    "name": untrusted.text,
    "layer": _optional(_token),
    "kv_heads": _count,
    "key_width": _count,
    "value_width": _count,
    "key_format": untrusted.identifier,
    "value_format": untrusted.identifier,
    "group": untrusted.identifier,
}
_GROUP: dict[str, Read] = {
    "name": untrusted.identifier,
    "head_groups": _count,
    "window": _optional(_count),
    "indexed": untrusted.boolean,
}
_SCHEDULE: dict[str, Read] = {
    "when": lambda data, where: untrusted.choice(data, where, MOMENTS),
    "action": untrusted.identifier,
    "arguments": _arguments,
}
