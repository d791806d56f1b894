"""Programs as ONNX files that stock onnxruntime runs: no custom operators, no library of ours.

One file per stage. A decoder takes `input_ids`, `attention_mask` and `past_key_values.N.key` and
`.value`, and gives `logits` for every token and `present.N.key` and `.value`; any other stage keeps
its inputs and results. Batch, length and past vary from call to call. The decoder of a
vision-language model takes `inputs_embeds` instead of `input_ids`: what its stage "embed" gives.

Two dialects say the same:

    ort       operators of com.microsoft: GroupQueryAttention with its rotations, MatMulNBits,
              SkipSimplifiedLayerNormalization. What onnxruntime is fast at, the default.
    standard  Attention, RMSNormalization, RotaryEmbedding and blockwise DequantizeLinear of the
              standard (opset 23); written out in older operators where a lower opset is asked for.

A decoder has no input for positions: they are counted from `attention_mask`. In the dialect "ort"
the tokens of a sequence come first in its row (padding on the right, as GroupQueryAttention reads
lengths only), and a prompt in several pieces is fed one sequence at a time; in "standard" padding
may be anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from effc.diagnostics import ExportError, did_you_mean
from effc.export import dense
from effc.export.base import Exported, stage_files
from effc.export.onnx.packages import require_onnx
from effc.export.single_file import check_files
from effc.ir.program import ENCODE, Program

# Dialect -> the opset it is written for when none is asked for.
DIALECTS: dict[str, int] = {"ort": 21, "standard": 23}

# torch translates to 18 at least; onnxruntime 1.31 reads 26 at most.
OPSETS = range(18, 27)

# Since when DequantizeLinear has blocks and elements of 4 bits.
BLOCKS_SINCE = 21


@dataclass(frozen=True)
class Onnx:
    """`torch.onnx.export`, our translations, and passes over the ONNX graph.

    Attributes:
        dialect: "ort" or "standard".
        opset: version of the standard operators; None takes the dialect's own.
        external_data: keep weights in a file `<name>.data` beside the model; None does so beyond
            256 MiB.
        genai_config: make the folder one that onnxruntime-genai generates from: genai_config.json
            and the tokenizer's files beside the model.
    """

    format: ClassVar[str] = "onnx"

    dialect: str = "ort"
    opset: int | None = None
    external_data: bool | None = None
    genai_config: bool = False

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise ExportError(
                "E0801",
                f"there is no dialect {self.dialect!r}",
                help=did_you_mean(self.dialect, DIALECTS),
            )
        if self.opset is not None and self.opset not in OPSETS:
            raise ExportError(
                "E0801",
                f"opset {self.opset} is not written; {OPSETS[0]} to {OPSETS[-1]} are",
                help=f"leave it out for {DIALECTS[self.dialect]}, or name the newest one that "
                "your runtime reads",
            )

    def export(self, program: Program, path: Path, *, force: bool = False) -> Exported:
        """Write one model per stage; see `Exporter.export`."""
        files = stage_files(program, path)
        self._check(program, files, path, force)
        require_onnx()
        from effc.export.onnx import genai
        from effc.export.onnx.build import build
        from effc.export.onnx.files import save
        from effc.export.onnx.metadata import describe

        notes: list[str] = []
        beside: list[Path] = []
        for name, file in files.items():
            g = build(program, program.stages[name], self.dialect, self.version)
            describe(g, program, name, self.dialect)
            notes += [note for note in g.notes if note not in notes]
            _, *data = save(g.model, file, external=self.external_data)
            beside += data
            if self.genai_config:
                beside += genai.write(g, program, file, force=force)
        return Exported(files, (*notes, *self._notes(program)), tuple(beside))

    @property
    def version(self) -> int:
        """The opset written."""
        return self.opset or DIALECTS[self.dialect]

    def _check(self, program: Program, files: Mapping[str, Path], path: Path, force: bool) -> None:
        """Refuse what cannot be done before anything is computed."""
        places = [*files.values(), *(f.with_name(f"{f.name}.data") for f in files.values())]
        check_files(places, force=force)
        if self.genai_config:
            check_genai(program, path, force=force)
        check_types(program)
        if self.dialect == "standard" and self.version < BLOCKS_SINCE and _packed(program):
            raise ExportError(
                "E0801",
                f"opset {self.version} has no operator for weights of few bits",
                where=program.info.source,
                help=f"{BLOCKS_SINCE} is the lowest that works, or use --dialect ort",
            )

    def _notes(self, program: Program) -> list[str]:
        if program.loop != "autoregressive":
            return []
        cost = dense.bytes_per_slot(program)
        found = [f"the cache is handed in and out whole: {cost:,} bytes per token of a sequence"]
        if windows := [group.name for group in program.groups if group.window is not None]:
            found.append(f"it keeps tokens that {', '.join(windows)} would have dropped, masked")
        return found


def check_types(program: Program) -> None:
    """Refuse element types for which onnxruntime has no kernels on a CPU.

    Raises:
        ExportError: E0801.
    """
    names = program.read_weights()
    if any(program.weights[name].dtype == torch.bfloat16 for name in names):
        raise ExportError(
            "E0801",
            "the model computes in bfloat16, which onnxruntime does not on a CPU",
            where=program.info.source,
            help='compile it with target.dtype = "float32" or "float16"',
        )


def check_genai(program: Program, path: Path, *, force: bool) -> None:
    """Refuse a folder for onnxruntime-genai that cannot be one.

    Raises:
        ExportError: E0801 when the program is no decoder that it knows.
        ArtifactError: E0102 when a file is there already.
    """
    from effc.export.onnx.genai import CONFIG

    sites = {(s.kv_heads, s.key_width, s.value_width) for s in program.cache_sites}
    reason = None
    if ENCODE in program.stages:
        reason = "reads images"
    elif program.loop != "autoregressive" or len(sites) != 1:
        reason = "is no decoder" if not sites else "has layers with caches of different shapes"
    if reason is not None:
        raise ExportError(
            "E0801",
            f"onnxruntime-genai cannot generate with this model: it {reason}",
            where=program.info.source,
            help="leave --genai-config out",
        )
    check_files([path.with_name(name) for name in (CONFIG, *program.info.files)], force=force)


def _packed(program: Program) -> bool:
    return any("effc.quantized_linear" in str(node.target) for _, node in program.nodes())
