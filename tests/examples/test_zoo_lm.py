"""The reference model `lm`: its data, its trainer, its baselines, and the shipped weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo.__main__ import FAMILIES, main
from examples.zoo.lm import data, syntax
from examples.zoo.lm.evaluate import complete, fit_documents, load
from examples.zoo.lm.likelihood import (
    Measure,
    measure_likelihood,
    model_scorer,
    ngram_scorer,
    ratio,
)
from examples.zoo.lm.model import build, config
from examples.zoo.lm.ngram import KneserNey
from examples.zoo.lm.train import LENGTHS, STEP_TOKENS, LanguageTask
from examples.zoo.trainer import Settings, Trainer, rate_factor

SOME_MODULES = "[a-i]*.py"
CHECKPOINT = FAMILIES["lm"].checkpoint
Loaded = tuple[LlamaForCausalLM, PreTrainedTokenizerFast]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus() -> data.Corpus:
    """Some top-level modules only, for speed; paths and split are as in the whole corpus."""
    return data.load_corpus(pattern=SOME_MODULES)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(CHECKPOINT)


@pytest.fixture(scope="module")
def trigram(loaded: Loaded, corpus: data.Corpus) -> KneserNey:
    model, tokenizer = loaded
    return KneserNey(
        fit_documents(tokenizer, corpus.train), 3, model.config.vocab_size, data.BOS_ID
    )


def test_split_is_disjoint_deterministic_and_by_path(corpus: data.Corpus) -> None:
    train = {document.text for document in corpus.train}
    held_out = {document.text for document in corpus.held_out}
    assert train and held_out and not train & held_out
    assert len(train) + len(held_out) == len(corpus.documents)
    paths = [document.path for document in corpus.documents]
    assert paths == sorted(paths)
    assert data.load_corpus(pattern=SOME_MODULES).digest == corpus.digest
    # A fixed sample: the split must never move a file, whatever else changes.
    names = ("ast.py", "json/decoder.py", "argparse.py", "test/test_typing.py")
    assert [data.Document(name, "").held_out for name in names] == [False] * 4
    shares = [data.Document(f"{number}.py", "").held_out for number in range(4000)]
    assert 0.04 < np.mean(shares) < 0.06


def test_corpus_leaves_out_copies_tables_and_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "site-packages").mkdir()
    for name, content in {
        "a.py": b"x = 1\n",
        "copy.py": b"x = 1\n",
        "empty.py": b"",
        "latin.py": b"# \xe9\n",
        "_sysconfigdata_linux.py": b"build = 1\n",
        "site-packages/b.py": b"y = 1\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert [document.path for document in data.load_corpus(tmp_path).documents] == ["a.py"]


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n\treturn x  # tab\n",
        "é ü 漢字 🐍 \u00a0 \u2028",
        "\x00\x01\x7f\r\n\r  \t ",
        "   indented\n\n\n        deeper   \n",
        "<|eos|> is text here? no: a token",
        "it's  12345678 -> 'x'\\n",
        "",
    ],
)
def test_tokenizer_round_trips_every_byte(loaded: Loaded, text: str) -> None:
    _, tokenizer = loaded
    assert data.decode(tokenizer, data.encode(tokenizer, text)) == text
    assert tokenizer.decode(data.encode(tokenizer, text)) == text
    assert tokenizer(text).input_ids == [data.BOS_ID, *data.encode(tokenizer, text)]


def test_cuts_change_tokens_but_not_text(loaded: Loaded, corpus: data.Corpus) -> None:
    _, tokenizer = loaded
    stream = data.pack(tokenizer, corpus.held_out[:3], seed=1)
    texts = data.decode(tokenizer, stream.tolist()).split(data.EOS)
    assert sorted(texts) == sorted(["", *(document.text for document in corpus.held_out[:3])])


def test_every_row_begins_with_bos_and_fits_the_context(loaded: Loaded) -> None:
    task = LanguageTask(loaded[0], np.arange(3, 4000, dtype=np.int16), seed=0)
    for share, length in LENGTHS:
        batches = task.batches(step=1, progress=share)
        assert {batch.shape[1] for batch in batches} == {length}
        assert sum(batch.numel() for batch in batches) == STEP_TOKENS
        assert all((batch[:, 0] == data.BOS_ID).all() for batch in batches)


def test_ngram_probabilities_sum_to_one(trigram: KneserNey) -> None:
    rng = np.random.default_rng(0)
    contexts = [[], [5], *rng.integers(0, trigram.vocabulary, (6, 4)).tolist()]
    for context in contexts:
        distribution = trigram.distribution(context)
        assert distribution.min() > 0
        assert math.isclose(distribution.sum(), 1.0, rel_tol=1e-9)


def test_ngram_scores_agree_with_its_distribution(
    trigram: KneserNey, loaded: Loaded, corpus: data.Corpus
) -> None:
    document = fit_documents(loaded[1], corpus.held_out[:1])[0][:60]
    each = [math.log(trigram.distribution(document[:i])[token]) for i, token in enumerate(document)]
    np.testing.assert_allclose(trigram.log_probabilities(document), each, rtol=1e-9)


def test_ngram_equals_a_count_by_hand() -> None:
    # Bigrams of "0 1 0 1 0 2" after bos 3, too few for the closed form: half a count is taken.
    model = KneserNey([[0, 1, 0, 1, 0, 2]], order=2, vocabulary=4, bos=3)
    # Token 0 follows two different tokens (3 and 1); 1 and 2 follow one (0).
    unigram = [(count - 0.5 * (count > 0)) / 4 + 1.5 / 4 / 4 for count in (2, 1, 1, 0)]
    after_zero = [(count - 0.5 * (count > 0)) / 3 for count in (0, 2, 1, 0)]
    expected = [own + 1.0 / 3 * lower for own, lower in zip(after_zero, unigram, strict=True)]
    np.testing.assert_allclose(model.distribution([0]), expected)


def test_ratio_has_the_error_of_a_mean_for_equal_sizes() -> None:
    amounts = [1.0, 2.0, 4.0, 9.0]
    measure = ratio(amounts, [1, 1, 1, 1])
    expected = Measure(4.0, float(np.std(amounts, ddof=1) / 2))
    assert measure == pytest.approx(expected) or math.isclose(measure.error, expected.error)


@pytest.mark.parametrize(
    ("continuation", "ended", "expected"),
    [
        ("    return 1\n\nx = (2,\n", False, True),
        ("    return 1\n    retur", False, True),
        ("    return 1", True, True),
        ('    """Only words."""\n', False, False),
        ("    return 1\n   x = 2\n", False, False),
        ("    return return\n", False, False),
        ("    x = (1,\n    2,\n", False, False),
        ("", True, False),
    ],
)
def test_parser_judges_continuations(continuation: str, ended: bool, expected: bool) -> None:
    assert syntax.is_python("def f():\n", continuation, ended) is expected


def test_rate_rises_and_ends_at_zero(tmp_path: Path) -> None:
    settings = Settings(work_dir=tmp_path, steps=10, warmup=0.1, anneal_from=0.5)
    factors = [rate_factor(share, settings) for share in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_settings_want_one_budget(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either `minutes` or `steps`"):
        Settings(work_dir=tmp_path)


def _tiny_trainer(work_dir: Path, seed: int = 0) -> Trainer:
    stream = np.random.default_rng(0).integers(3, 64, 5000).astype(np.int16)
    model = build(config(hidden=128, ffn=128, layers=1, vocabulary=64), seed)
    settings = Settings(work_dir=work_dir, steps=4, seed=seed)
    return Trainer(LanguageTask(model, stream, seed), settings, report=lambda line: None)


def test_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = _tiny_trainer(tmp_path / "whole")
    whole.run()
    _tiny_trainer(tmp_path / "parts").run(stop_after=2)
    parts = _tiny_trainer(tmp_path / "parts")
    parts.run()
    assert whole.progress.step == parts.progress.step == 4
    assert whole.progress.losses == parts.progress.losses
    for name, weight in whole.task.model.state_dict().items():
        assert torch.equal(weight, parts.task.model.state_dict()[name]), name


def test_state_of_another_seed_is_refused(tmp_path: Path) -> None:
    _tiny_trainer(tmp_path).run(stop_after=0)
    with pytest.raises(ValueError, match="another seed"):
        _tiny_trainer(tmp_path, seed=1).run()


def test_shipped_checkpoint_is_small_half_precision_and_divisible() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 16 * 2**20
    settings = json.loads((CHECKPOINT / "config.json").read_text())
    assert settings["dtype"] == "float16"
    assert settings["hidden_size"] % 256 == settings["intermediate_size"] % 256 == 0
    assert settings["head_dim"] == 64
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        kinds = {weights.get_slice(name).get_dtype() for name in names}
        assert kinds == {"F16"}
        assert "lm_head.weight" not in names


def test_shipped_model_beats_the_ngram(
    loaded: Loaded, corpus: data.Corpus, trigram: KneserNey
) -> None:
    model, tokenizer = loaded
    slices = [tokens[:400] for tokens in fit_documents(tokenizer, corpus.held_out)[:6]]
    sizes = [len(tokens) for tokens in slices]
    shipped = measure_likelihood(model_scorer(model), slices, sizes)
    baseline = measure_likelihood(ngram_scorer(trigram), slices, sizes)
    assert shipped.perplexity.value < 0.7 * baseline.perplexity.value
    assert shipped.accuracy.value > baseline.accuracy.value + 0.05


def test_windows_score_every_token_once(loaded: Loaded) -> None:
    model, _ = loaded
    document = np.random.default_rng(0).integers(3, 4096, 1600).tolist()
    logs, right = model_scorer(model)(document)
    assert len(logs) == len(right) == len(document)
    first, _ = model_scorer(model)(document[:900])
    np.testing.assert_allclose(logs[:900], first, atol=1e-4)


@pytest.mark.parametrize(
    "prompt", ["import os\n\nclass ", "class Stack:\n    def push(self, item):\n"]
)
def test_shipped_model_writes_python(loaded: Loaded, prompt: str) -> None:
    model, tokenizer = loaded
    assert syntax.is_python(prompt, complete(model, tokenizer, prompt), ended=False)


def test_list_names_the_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "lm             trained" in capsys.readouterr().out


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon"])
def test_train_refuses_a_budget_that_is_none(
    minutes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "lm", f"--minutes={minutes}"])
    assert stop.value.code == 2
    assert "--minutes" in capsys.readouterr().err


def test_evaluate_refuses_a_folder_without_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "lm", str(tmp_path)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
