"""The drafters of `lm`: their texts, their loss, the measure of acceptance, the shipped weights."""

from __future__ import annotations

import ast
import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import kl_div

from examples.zoo.__main__ import FAMILIES
from examples.zoo.drafters import acceptance, numbers, separate
from examples.zoo.drafters.acceptance import Agreement, accepted_lengths, compare
from examples.zoo.drafters.domains import DOMAINS
from examples.zoo.drafters.evaluate import UNTRAINED, Matrix, load_drafters, measure
from examples.zoo.drafters.model import config, cost
from examples.zoo.drafters.train import (
    LENGTHS,
    STEP_TOKENS,
    TARGET,
    DistillationTask,
    start,
    train,
)
from examples.zoo.lm import data
from examples.zoo.lm.evaluate import load
from examples.zoo.lm.model import build
from examples.zoo.lm.model import config as lm_config
from examples.zoo.trainer import Settings

SOME_MODULES = "[a-d]*.py"
PARENTS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

MIXED = '''\
#!/usr/bin/env python
"""Words that stand before everything else."""
import os  # used below, but not by many readers

# A comment of two lines that says
# something about the function.
@wraps
def f(x):
    r"""Return nothing at all, é included."""  # noqa

    # Not many words.
    return "# no comment at all, though it looks so"

class Empty(Exception):
    """Say so; this body is
    all docstring.
    """

def g(): "one line holds header and docstring"; return 1
'''
STATEMENTS = """\
import os

@wraps
def f(x):
    return "# no comment at all, though it looks so"

class Empty(Exception):
    pass

def g(): "one line holds header and docstring"; return 1
"""
WORDS = '''\
"""Words that stand before everything else."""

# A comment of two lines that says
# something about the function.

r"""Return nothing at all, é included."""

"""Say so; this body is
all docstring.
"""

"one line holds header and docstring"
'''


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus() -> data.Corpus:
    return data.load_corpus(pattern=SOME_MODULES)


def test_code_and_prose_of_a_file() -> None:
    source = separate.parse(MIXED)
    assert source is not None
    assert separate.code(source) == STATEMENTS
    assert separate.prose(source) == WORDS


def test_code_has_the_syntax_tree_of_the_file_without_docstrings(corpus: data.Corpus) -> None:
    checked = 0
    for document in corpus.documents:
        source = separate.parse(document.text)
        if source is None:
            continue
        with warnings.catch_warnings(action="ignore"):
            whole, code = ast.parse(document.text), ast.parse(separate.code(source))
        assert ast.dump(_without_docstrings(whole)) == ast.dump(code), document.path
        checked += 1
    assert checked > 20


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, PARENTS) and ast.get_docstring(node, clean=False) is not None:
            rest = node.body[1:]
            node.body = rest or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


@pytest.mark.parametrize("text", ["def f(:\n", "x = 1\ry = 2\n", "'''open\n"])
def test_a_file_that_is_not_python_has_no_parts(text: str) -> None:
    assert separate.parse(text) is None


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_do_not_meet(domain: str, corpus: data.Corpus) -> None:
    train, held_out = (DOMAINS[domain](corpus, split) for split in (False, True))
    assert train and held_out
    assert not {one.path for one in train} & {one.path for one in held_out}
    if domain != "numbers":
        assert all(one.held_out for one in held_out) and not any(one.held_out for one in train)
        return
    tables = [{table for one in part for table in _tables(one.text)} for part in (train, held_out)]
    assert not tables[0] & tables[1]


def _tables(text: str) -> list[str]:
    return [table.rstrip("\n") for table in text.split("\n\n")]


def test_a_document_of_numbers_is_a_function_of_its_seed() -> None:
    assert numbers.document(7) == numbers.document(7) != numbers.document(8)


@pytest.mark.parametrize("kind", numbers.TABLE_KINDS, ids=lambda kind: kind.__name__)
def test_tables_are_right(kind: numbers.Kind) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = ast.literal_eval(kind(rng))
        assert TRUTHS[kind.__name__.strip("_")](table)


def _rank_is_one(table: list[list[int]]) -> bool:
    return np.linalg.matrix_rank(np.asarray(table)) == 1


def _same_steps(table: list[int], order: int) -> bool:
    return len(set(np.diff(np.asarray(table, dtype=np.int64), order).tolist())) == 1


TRUTHS = {
    "products": _rank_is_one,
    "sums": lambda table: all(a + b == c for a, b, c in table),
    "remainders": lambda table: all(
        row[b] == (row[b - 1] + row[1]) % len(row) for row in table for b in range(1, len(row))
    ),
    "progression": lambda table: _same_steps(table, 1),
    # Third differences of squares are zero and of cubes six.
    "powers": lambda table: _same_steps(table, 3) and not _same_steps(table, 1),
    "recurrence": lambda table: all(
        a + b == c for a, b, c in zip(table, table[1:], table[2:], strict=False)
    ),
    "codes": lambda table: len({value - key for key, value in table.items()}) == 1,
    "bits": lambda table: _same_steps([int("".join(map(str, row)), 2) for row in table], 1),
    "samples": lambda table: len(table) == 60 and 0 <= min(table) <= max(table) < 1000,
    "fractions": lambda table: all(
        abs(value - index / round(40 / table[39])) < 0.0005 + 1e-9
        for index, value in enumerate(table, start=1)
    ),
}


def _laws(seed: int, vocabulary: int = 3) -> Tensor:
    """Make a next-token law for every last token.  [V, V]"""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(vocabulary, vocabulary, generator=generator, dtype=torch.float64)
    return (2 * scores).softmax(-1)


def _accepted(p: Tensor, q: Tensor, last: int, length: int) -> float:
    """Return the expected number of accepted tokens by enumerating what the drafter may draw."""
    if length == 0:
        return 0.0
    return sum(
        float(q[last, token] * (p[last, token] / q[last, token]).clamp(max=1))
        * (1 + _accepted(p, q, token, length - 1))
        for token in range(len(p))
    )


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_accepted_length_along_texts_equals_that_over_drafts(length: int) -> None:
    p, q = _laws(0), _laws(1)
    along_texts = 0.0
    for text in itertools.product(range(len(p)), repeat=length):
        before = [0, *text[:-1]]
        probability = float(p[before, list(text)].prod())
        places = compare(p[before], q[before], text)
        along_texts += probability * float(accepted_lengths(places, length)[0])
    assert along_texts == pytest.approx(_accepted(p, q, 0, length), abs=1e-12)
    assert 0.1 * length < along_texts < 0.9 * length


def test_overlap_is_one_less_the_distance() -> None:
    p, q = _laws(0), _laws(1)
    found = compare(p, q, [2, 1, 0])
    np.testing.assert_allclose(found.overlap, 1 - (p - q).abs().sum(-1).numpy() / 2)
    np.testing.assert_allclose(found.weight[0], min(1.0, float(q[0, 2] / p[0, 2])))


def test_the_target_accepts_itself() -> None:
    p = _laws(0)
    found = compare(p, p, [0, 1, 2])
    np.testing.assert_allclose(found.overlap, 1)
    np.testing.assert_allclose(accepted_lengths(found, 3), [3.0])
    assert len(accepted_lengths(found, 4)) == 0


def test_margin_is_paired() -> None:
    def places(*overlaps: float) -> list[Agreement]:
        return [Agreement(np.full(5, overlap), np.ones(5)) for overlap in overlaps]

    found = acceptance.margin(places(0.2, 0.5, 0.9), places(0.1, 0.4, 0.8))
    assert found.value == pytest.approx(0.1)
    assert found.error == pytest.approx(0.0, abs=1e-12)


def _tiny_task() -> DistillationTask:
    settings = lm_config(hidden=128, ffn=128, layers=1, vocabulary=64)
    stream = np.random.default_rng(0).integers(3, 64, 5000).astype(np.int16)
    return DistillationTask(build(settings, 1), build(settings, 2), stream, seed=0)


def test_loss_is_the_divergence_and_reaches_the_drafter_alone() -> None:
    task = _tiny_task()
    batch = task.batches(step=0, progress=0.0)[0]
    loss = task.loss(batch)
    p = task.target(input_ids=batch, use_cache=False).logits.float().log_softmax(-1)
    q = task.model(input_ids=batch, use_cache=False).logits.log_softmax(-1)
    expected = kl_div(q, p, log_target=True, reduction="sum") / batch.numel()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())
    assert all(parameter.grad is None for parameter in task.target.parameters())


def test_loss_vanishes_where_the_drafter_is_the_target() -> None:
    task = _tiny_task()
    task.model = task.target
    assert abs(task.loss(task.batches(step=0, progress=0.0)[0]).item()) < 1e-5


def test_every_row_begins_with_bos_and_steps_are_of_one_size() -> None:
    task = _tiny_task()
    for share, length in LENGTHS:
        batches = task.batches(step=1, progress=share)
        assert {batch.shape[1] for batch in batches} == {length}
        assert sum(batch.numel() for batch in batches) == STEP_TOKENS
        assert all((batch[:, 0] == data.BOS_ID).all() for batch in batches)


def test_start_has_the_best_narrow_embedding() -> None:
    target = build(lm_config(hidden=256, ffn=128, layers=1), seed=0)
    table = target.get_input_embeddings().weight.detach().double()
    narrow = start(target, seed=0).get_input_embeddings().weight.detach().double()
    # No inner products of rows of width d come nearer: what is lost is the rest of the spectrum.
    spectrum = torch.linalg.eigvalsh(table.T @ table)
    least = spectrum[: -narrow.shape[1]].square().sum().sqrt()
    lost = (table @ table.T - narrow @ narrow.T).norm()
    assert lost.item() == pytest.approx(least.item(), rel=1e-4)


def test_cost_of_a_drafter_is_a_fifth_of_the_targets() -> None:
    own, target = (cost(build(settings, 0)) for settings in (config(), lm_config()))
    # Query and output, key and value of one head of 64, three FFN matrices; then the head.
    layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256
    assert own.flops == 2 * (2 * layer + 4096 * 128)
    assert own.bytes == 2 * own.parameters == own.flops + 2 * 5 * 128
    assert 0.19 < own.flops / target.flops < 0.20
    assert 0.19 < own.bytes / target.bytes < 0.20


def test_training_writes_a_folder_that_loads(
    tmp_path: Path, corpus: data.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load_corpus", lambda: corpus)
    settings = Settings(work_dir=tmp_path / "work", steps=2)
    train(tmp_path / "out", settings, "prose")
    drafters = load_drafters(tmp_path / "out", "prose")
    assert "draft-prose" in drafters and UNTRAINED in drafters
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (record["domain"], record["steps"], record["tokens_seen"]) == ("prose", 2, 2 * 2048)
    assert not settings.state_file.exists()


def test_matrix_shows_a_row_per_drafter_and_a_margin_per_other() -> None:
    places = [Agreement(np.full(6, 0.5), np.full(6, 0.5)) for _ in range(3)]
    names = [*(f"draft-{domain}" for domain in DOMAINS), UNTRAINED]
    matrix = Matrix({domain: dict.fromkeys(names, places) for domain in DOMAINS})
    # 0.5 + 0.5^2 + 0.5^3 + 0.5^4
    row = "| draft-code |" + " 0.500 ± 0.000; 0.94 ± 0.00 |" * len(DOMAINS)
    assert row in matrix.table().splitlines()
    assert len(matrix.margins().splitlines()) == 2 + 3 * 2


@pytest.mark.parametrize("domain", DOMAINS)
def test_shipped_drafter_is_small_and_shares_the_targets_tokenizer(domain: str) -> None:
    folder = FAMILIES[f"draft-{domain}"].checkpoint
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (TARGET / name).read_bytes()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3 * 2**20
    with safe_open(folder / "model.safetensors", "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"F16"}


def test_every_shipped_drafter_is_best_in_its_own_domain() -> None:
    target, tokenizer = load(TARGET)
    folder = FAMILIES["draft-code"].checkpoint
    corpus = data.load_corpus(pattern="[a-p]*/*.py")
    matrix = measure(target, tokenizer, load_drafters(folder, "code"), corpus, limit=8)
    for domain, column in matrix.cells.items():
        own = column[f"draft-{domain}"]
        for name, other in column.items():
            if name != f"draft-{domain}":
                margin = acceptance.margin(own, other)
                assert margin.value > 2 * margin.error, (domain, name, margin)
