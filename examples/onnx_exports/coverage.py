"""What effc makes of one exported file, compared with stock onnxruntime on that file.

`measure` answers four questions: does `effc.import_onnx` give the file's results, does
`effc.optimize` give its logits, do both choose the same tokens with a cache, and are the sites
those of the checkpoint the file was exported from.
"""

from __future__ import annotations

import json
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from examples.onnx_exports.loops import Arrays, Decoder, example_feeds, run
from examples.onnx_exports.models import BY_NAME, DECODER, IMAGE, VOCABULARY

PROMPT, NEW_TOKENS = 20, 16
SEED = 1
TOLERANCE = 1e-3
LINE = 300

Step = Callable[[Path, "Row"], None]


@dataclass
class Row:
    """What was found about one file.

    Attributes:
        exporter, family, kind: of the file.
        made: why the exporter could not make it; empty if it could.
        imported, logits: largest difference to onnxruntime, relative to the largest value; of
            every output of the graph as it stands, and of the compiled decoder's logits. If the
            file asks for activations rounded to int8, both sides keep them fp32.
        as_written: share of the logits' rows that differ by more than `TOLERANCE` when activations
            are rounded: one that lies between two int8 values may fall to either side. None where
            nothing is rounded.
        batch: the largest of 1 and 2 that onnxruntime can run the file with.
        tokens: batch size -> whether greedy tokens are equal.
        sites: kind -> number.
        expected: the same for the checkpoint, by way of the Hugging Face frontend.
        misses: what was nearly matched: rule and first difference.
        error: the step that failed and its first line.
    """

    exporter: str
    family: str
    kind: str
    made: str = ""
    imported: float | None = None
    logits: float | None = None
    as_written: float | None = None
    batch: int = 2
    tokens: dict[str, bool] = field(default_factory=dict)
    sites: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether everything that applies holds."""
        if self.made or self.error or self.imported is None or self.imported > TOLERANCE:
            return False
        if self.kind != DECODER:
            return True
        return self.logits is not None and self.logits <= TOLERANCE and all(self.tokens.values())


def measure(folder: Path, expected: dict[str, int]) -> Row:
    """Everything about the file in `folder`; failures are results.

    Args:
        folder: with model.onnx and made.json; the trace of a failure is written beside them.
        expected: sites of the checkpoint, by kind.
    """
    said = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    row = Row(said["exporter"], said["family"], said["kind"], expected=expected)
    if not said["ok"]:
        row.made = said["reason"]
        return row
    file = folder / "model.onnx"
    (folder / "failure.txt").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        exact = with_exact_products(file, Path(temporary))
        steps: list[tuple[str, Step, Path]] = [("import", _imports, exact)]
        if row.kind == DECODER:
            steps.append(("compile", _compiles, exact))
        if exact != file:
            steps.append(("as written", _rounds, file))
        for name, step, source in steps:
            try:
                step(source, row)
            except Exception as error:  # what goes wrong is what this tool is for
                (folder / "failure.txt").write_text(traceback.format_exc(), encoding="utf-8")
                first = str(error).strip().splitlines() or ["no message"]
                row.error = row.error or f"{name}: {type(error).__name__}: {first[0][:LINE]}"
    return row


def _imports(file: Path, row: Row) -> None:
    """The graph as it stands: every output for the same inputs."""
    import effc

    program: Any = effc.import_onnx(file)
    row.imported = 0.0
    for feeds in _calls(file, row):
        expected = run(file, feeds).values()
        found = program(*(torch.from_numpy(np.array(value)) for value in feeds.values()))
        pairs = zip(expected, found, strict=True)
        wrong = max(difference(left, np.asarray(right)) for left, right in pairs)
        row.imported = max(row.imported, wrong)


def _calls(file: Path, row: Row) -> list[Arrays]:
    """Inputs of the calls to compare; of a decoder with an empty cache and with a full one."""
    if row.kind != DECODER:
        size = {"tokens": 9, "vocabulary": VOCABULARY, "image": IMAGE}
        return [example_feeds(file, **size, seed=SEED)]
    decoder = Decoder(file)
    row.batch = _batch(decoder)
    first = decoder.feeds(_prompt(row.batch), decoder.empty_cache(row.batch))
    _, cache = decoder.step(_prompt(row.batch))
    # GroupQueryAttention takes one token per row after a cache.
    more = _prompt(row.batch, seed=SEED + 1)[:, : 1 if decoder.builder else 5]
    return [first, decoder.feeds(more, cache)] if cache.tensors else [first]


def _batch(decoder: Decoder) -> int:
    """torch.onnx may write rotations, at opset 23, that onnxruntime runs for one row only."""
    try:
        decoder.step(_prompt(2))
    except InvalidArgument:
        return 1
    return 2


def _compiles(file: Path, row: Row) -> None:
    """The decoder behind the graph: sites, logits, tokens with a cache."""
    import effc
    from effc.compiler import plan_model

    planned = plan_model(file)
    row.sites = dict(Counter(site.kind for site in planned.sites))
    misses = Counter(f"{miss.rule}: {miss.reason}" for miss in planned.journal.misses)
    row.misses = [f"{count} x {text}" for text, count in misses.items()]
    compiled = effc.optimize(file)
    theirs = Decoder(file)
    ids = _prompt(row.batch)
    logits = np.asarray(compiled(torch.from_numpy(ids)).logits)
    row.logits = difference(theirs.step(ids)[0], logits)
    for batch in range(1, row.batch + 1):
        options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "eos_token_id": []}
        found = compiled.generate(torch.from_numpy(ids[:batch]), **options)[:, PROMPT:]
        tokens = theirs.generate(ids[:batch], NEW_TOKENS)
        row.tokens[str(batch)] = bool((tokens == np.asarray(found)).all())


def _rounds(file: Path, row: Row) -> None:
    """The logits as the file asks for them, with activations rounded to int8."""
    import effc

    ids = _prompt(row.batch)
    expected = Decoder(file).step(ids)[0]
    found = np.asarray(effc.optimize(file)(torch.from_numpy(ids)).logits)
    wrong = np.abs(expected - found).max(-1) / np.abs(expected).max()
    row.as_written = float((wrong > TOLERANCE).mean())


def expected_sites(family: str) -> dict[str, int]:
    """Sites by kind of the family's checkpoint; empty if effc refuses that."""
    import effc
    from effc.compiler import plan_model

    with tempfile.TemporaryDirectory() as temporary:
        BY_NAME[family].save(Path(temporary))
        try:
            return dict(Counter(site.kind for site in plan_model(temporary).sites))
        except effc.EffcError:
            return {}


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """max |a - b| / max |b|; infinite when shapes differ or values are not finite."""
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    largest = float(np.abs(expected).max(initial=0))
    return float(np.abs(expected - found).max(initial=0)) / (largest or 1.0)


def with_exact_products(file: Path, folder: Path) -> Path:
    """The file, or, if it rounds activations to int8, a copy in `folder` that keeps them fp32."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    if not any(a.name == "accuracy_level" for node in graph.node for a in node.attribute):
        return file
    model = onnx.load(file)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    onnx.save(model, folder / file.name)
    for config in file.parent.glob("*config.json"):
        (folder / config.name).write_bytes(config.read_bytes())
    return folder / file.name


def _prompt(batch: int, seed: int = SEED) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, VOCABULARY, (batch, PROMPT))


def to_json(rows: list[Row]) -> str:
    """Rows as they are kept between two runs."""
    return json.dumps([asdict(row) for row in rows], indent=1) + "\n"


def from_json(text: str) -> list[Row]:
    """The inverse of `to_json`."""
    return [Row(**row) for row in json.loads(text)]
