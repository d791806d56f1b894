"""What users call: `optimize`, `load`, and the model they return."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from effc.diagnostics import ArtifactError, GenerationError, TargetError
from effc.ir.program import Program
from effc.runtime.encoding import is_encoder, read_encoder_inputs
from effc.runtime.visual import sees
from effc.settings import settings
from effc.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from effc.runtime.engine import Engine
    from effc.runtime.executable import Executable
    from effc.runtime.result import GenerationResult


def optimize(
    model: Any,
    spec: Any = None,
    tokenizer: Any = None,
    example_inputs: Any = None,
    *,
    dynamic_shapes: Any = None,
) -> CompiledModel:
    """Compile a model under a policy and make it ready to run.

    Args:
        model: `nn.Module`, the path of a Hugging Face folder or of an `.onnx` file, or an
            `onnx.ModelProto`.
        spec: path of a policy, dict, `effc.Policy`, or None for an empty policy.
        tokenizer: for `stop_strings` and `quality.data`; default: the one beside the model.
        example_inputs: for modules that are no transformers language model: tuple or dict.
        dynamic_shapes: which dimensions may vary, when the default reading is wrong.

    Raises:
        EffcError: every refusal.
    """
    from effc.compiler import compile_model

    done = compile_model(
        model,
        spec,
        example_inputs=example_inputs,
        dynamic_shapes=dynamic_shapes,
        tokenizer=tokenizer,
    )
    return CompiledModel(done.program, done.report, done.lock, done.policy.text or None, tokenizer)


def load(path: str | Path) -> CompiledModel:
    """Read what `save` or `effc compile` wrote.

    Raises:
        ArtifactError: E0601 to E0604.
    """
    from effc.runtime.loader import load_program, read_document

    program = load_program(path)
    report, lock = _json_document(path, "report.json"), _json_document(path, "policy.lock")
    return CompiledModel(program, report, lock, read_document(path, "policy.toml"), None)


def _json_document(path: str | Path, name: str) -> dict[str, Any]:
    from effc.runtime.loader import read_document

    try:
        data = json.loads(read_document(path, name) or "{}")
    except ValueError as error:
        raise ArtifactError("E0603", f"{name} is no JSON ({error})", where=str(path)) from error
    if not isinstance(data, dict):
        raise ArtifactError("E0603", f"{name} holds no JSON object", where=str(path))
    return data


class CompiledModel:
    """A compiled model: call it, generate with it, save it.

    Attributes:
        program: the lowered program.
        report: what the compiler did, the same as report.json.
    """

    def __init__(
        self,
        program: Program,
        report: Mapping[str, Any],
        lock: Mapping[str, Any],
        policy_text: str | None,
        tokenizer: Any,
    ) -> None:
        self.program = program
        self.report = report
        self._lock = lock
        self._policy_text = policy_text
        self._tokenizer = tokenizer

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The same call as the model.

        A language model takes `input_ids` and `attention_mask`, one that sees also
        `pixel_values` [N, 3, height, width], and returns an object with `.logits` [B, T, V];
        positions are counted by the engine. An encoder takes the same, and
        `token_type_ids` where it knows any; its results are named as the library names them
        (`.last_hidden_state`, ...). Any other module takes and returns what it did before (a
        tensor, a tuple, or an object with named results).

        Raises:
            GenerationError: E0701 to E0703.
        """
        if self.program.loop == "autoregressive":
            images = ("pixel_values",) if sees(self.program) else ()
            values = _bind(inputs, named, ("input_ids", "attention_mask", *images), required=1)
            return SimpleNamespace(logits=self.engine.forward(**values))
        stage = self.program.stages["forward"]
        names = tuple(spec.name for spec in stage.inputs)
        if is_encoder(self.program):
            given = _bind(inputs, named, names, required=1)
            values = read_encoder_inputs(self.program, given)
            return SimpleNamespace(**self.executable("forward", values))
        results = self.executable("forward", _bind(inputs, named, names, required=len(names)))
        if stage.outputs == ("output",):
            return results["output"]
        if all(name.isdigit() for name in results):
            return tuple(results.values())
        return SimpleNamespace(**results)

    def eval(self) -> CompiledModel:
        """Itself: a compiled model is always in evaluation mode."""
        return self

    def train(self, mode: bool = True) -> CompiledModel:
        """Itself for `mode=False`.

        Raises:
            GenerationError: E0703, a compiled model cannot be trained.
        """
        if mode:
            raise GenerationError(
                "E0703",
                "a compiled model serves inference only, train() does not apply to it",
                where=self.program.info.source,
                help="train the original model and compile it again",
            )
        return self

    def requires_grad_(self, requires_grad: bool = True) -> CompiledModel:
        """Itself for False; True is refused as by `train`."""
        return self.train(requires_grad)

    def to(self, device: torch.device | str) -> CompiledModel:
        """Itself, on the device it was compiled for.

        Raises:
            GenerationError: E0703 for any other device or for an element type.
        """
        if str(device).partition(":")[0] != self.program.device:
            raise GenerationError(
                "E0703",
                f"the model was compiled for {self.program.device} and cannot be moved to {device}",
                where=self.program.info.source,
                help="set target.device or target.dtype in the policy and compile it again",
            )
        return self

    def generate(self, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        """Continue prompts; returns LongTensor [B, T + new], prompts included.

        See `effc.runtime.engine.Engine.generate` for the options.
        """
        return self.engine.generate(input_ids, **options)

    def generate_result(self, input_ids: torch.Tensor, **options: Any) -> GenerationResult:
        """As `generate`, with timings, counters and the reason each row ended."""
        return self.engine.generate_result(input_ids, **options)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the artifact.

        Raises:
            ArtifactError: E0102 if something is there already, E0103 if it cannot be written.
        """
        from effc.export.package import write_artifact
        from effc.report.html import render_html

        write_artifact(
            self.program,
            Path(path),
            policy_text=self._policy_text,
            lock=self._lock,
            report=self.report,
            html=render_html(self.report),
            force=force,
        )

    def export(
        self, path: str | Path, format: str = "onnx", *, force: bool = False, **options: Any
    ) -> dict[str, Path]:
        """Write the model for another runtime.

        Args:
            path: the file; a model of several stages gets one file per stage beside it.
            format: "onnx", "pt2" or "mlir".
            force: replace files that are there.
            options: of the format: `dialect`, `opset`, `external_data`, `genai_config` of "onnx",
                see `effc.export.onnx.exporter.Onnx`; `dialect` of "mlir".

        Returns:
            Stage -> its file.

        Raises:
            ExportError: E0801 when the format is unknown or cannot express the model.
            ArtifactError: E0102 if a file is there already, E0103 if it cannot be written.
        """
        from effc.export.formats import export_program

        done = export_program(self.program, Path(path), format, force=force, **options)
        return dict(done.files)

    @cached_property
    def executable(self) -> Executable:
        """The stages with their weights in memory."""
        from effc.runtime.executable import Executable

        device = self.program.device
        if device == "cuda" and not torch.cuda.is_available():
            raise TargetError(
                "E0502",
                "the model was compiled for a CUDA device and there is none here",
                where=self.program.info.source,
                help='compile it with target.device = "cpu"',
            )
        return Executable(self.program, device=device, kernels=settings().kernels)

    @cached_property
    def engine(self) -> Engine:
        """The engine that generates."""
        from effc.runtime.engine import Engine

        decode = None if self.tokenizer is None else self.tokenizer.decode
        return Engine(self.executable, decode=decode, device=self.program.device)

    @cached_property
    def tokenizer(self) -> Tokenizer | Any | None:
        """The tokenizer given, else the one that came with the model, else None.

        Raises:
            ModelError: E0309 if tokenizer.json is damaged.
        """
        return self._tokenizer or open_tokenizer(self.program.info)


def _bind(
    inputs: tuple[Any, ...], named: Mapping[str, Any], names: tuple[str, ...], *, required: int
) -> dict[str, Any]:
    """Arguments by name; the first `required` of `names` must be there.

    An input that is called like a word of Python has an underscore in the program (`input_`).
    """
    values = dict(zip(names, inputs, strict=False))
    given = {f"{k}_" if k not in names and f"{k}_" in names else k: v for k, v in named.items()}
    twice = set(values) & set(given)
    values |= given
    if len(inputs) > len(names) or twice or not set(names[:required]) <= set(values) <= set(names):
        found = [f"{len(inputs)} unnamed"] if inputs else []
        raise GenerationError(
            "E0703",
            f"the model is called with {', '.join(names)}; "
            f"found {', '.join([*found, *named]) or 'nothing'}",
        )
    return values
