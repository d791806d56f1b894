"""A published sentence encoder: its embeddings, in fp32 and in fewer bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer

import effc
from examples.sentence_embeddings.__main__ import main, policy, read_sentences
from examples.sentence_embeddings.comparison import Comparison, compare
from examples.sentence_embeddings.encoder import (
    INSTALL,
    batches,
    embed,
    model_folder,
    open_tokenizer,
)

FOLDER = model_folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason=f"no published model here: {INSTALL}")

WITHOUT_TRANSFORMERS = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"transformers", "onnx", "lark", "triton"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import torch
import effc
from examples.sentence_embeddings.encoder import embed, model_folder, open_tokenizer
sentences = open(sys.argv[2], encoding="utf-8").read().splitlines()
vectors = embed(effc.load(sys.argv[1]), open_tokenizer(model_folder()), sentences)
torch.save(vectors, sys.argv[3])
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    assert FOLDER is not None
    return open_tokenizer(FOLDER)


@pytest.fixture(scope="module")
def compiled() -> effc.CompiledModel:
    return effc.optimize(FOLDER)


@pytest.fixture(scope="module")
def original(compiled: effc.CompiledModel, tokenizer: Tokenizer) -> torch.Tensor:
    return embed(compiled, tokenizer, read_sentences())


def in_bits(bits: int, tokenizer: Tokenizer, original: torch.Tensor) -> Comparison:
    """The whole corpus through the encoder in so many bits."""
    model = effc.optimize(FOLDER, policy(bits, 32))
    return compare(original, embed(model, tokenizer, read_sentences()))


def test_embeddings_are_those_of_transformers(
    compiled: effc.CompiledModel, tokenizer: Tokenizer
) -> None:
    model = transformers.AutoModel.from_pretrained(FOLDER).eval()
    sentences = read_sentences()[::5]
    ragged = 0
    for batch in batches(tokenizer, sentences):
        real = batch["attention_mask"].bool()
        ragged += int((~real).sum())
        with torch.no_grad():
            expected = model(**batch)
        found = compiled(**batch)
        # At padding the library's own implementations differ by 1e-4: rounding is amplified there.
        for left, right in (
            (found.last_hidden_state[real], expected.last_hidden_state[real]),
            (found.pooler_output, expected.pooler_output),
        ):
            torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    assert len(sentences) == 48
    assert ragged > 48
    with torch.no_grad():
        expected = embed(model, tokenizer, sentences)
    torch.testing.assert_close(embed(compiled, tokenizer, sentences), expected, rtol=0, atol=1e-6)


def test_sentence_does_not_depend_on_its_batch(
    compiled: effc.CompiledModel, tokenizer: Tokenizer, original: torch.Tensor
) -> None:
    for index in (0, 57, 239):
        alone = embed(compiled, tokenizer, [read_sentences()[index]])[0]
        torch.testing.assert_close(alone, original[index], rtol=0, atol=1e-6)


def test_artifact_gives_the_same_without_transformers(
    compiled: effc.CompiledModel, original: torch.Tensor, tmp_path: Path
) -> None:
    compiled.save(tmp_path / "out")
    assert (tmp_path / "out/model/1_Pooling/config.json").is_file()
    (tmp_path / "sentences").write_text("\n".join(read_sentences()[:48]), encoding="utf-8")
    paths = [str(tmp_path / name) for name in ("out", "sentences", "vectors.pt")]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRANSFORMERS, *paths],
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ".", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert torch.equal(torch.load(paths[2], weights_only=True), original[:48])


def test_paraphrases_are_neighbours(original: torch.Tensor) -> None:
    """The model is a trained one: of most pairs each sentence is the other's nearest."""
    similarity = original @ original.T
    pairs = [topic + 2 * i for topic in range(0, 240, 20) for i in range(6)]
    hits = sum(int(similarity[i].topk(2).indices[1] == i + 1) for i in pairs)
    assert hits >= 0.9 * len(pairs)


def test_8_bits_keep_the_neighbours(tokenizer: Tokenizer, original: torch.Tensor) -> None:
    found = in_bits(8, tokenizer, original)
    assert found.cosine_min > 0.998
    assert found.changed <= 0.04


def test_4_bits_keep_most_neighbours(tokenizer: Tokenizer, original: torch.Tensor) -> None:
    found = in_bits(4, tokenizer, original)
    assert 0.95 < found.cosine_mean < 0.99
    assert found.cosine_min > 0.92
    assert found.changed <= 0.16


def test_2_bits_do_not(tokenizer: Tokenizer, original: torch.Tensor) -> None:
    """The measures can fail: with so few bits both of them do."""
    found = in_bits(2, tokenizer, original)
    assert found.cosine_mean < 0.8
    assert found.changed > 0.2


def test_example_prints_a_row_per_number_of_bits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = read_sentences()[:21]
    monkeypatch.setattr("examples.sentence_embeddings.__main__.read_sentences", lambda: few)
    assert main(["--bits", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "21 sentences; a random neighbour differs in 95.0% of the cases"
    rows = [line.split() for line in lines[3:]]
    assert [row[0] for row in rows] == ["32", "8"]
    assert int(rows[1][1].replace(",", "")) < 0.28 * int(rows[0][1].replace(",", ""))


def test_example_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("examples.sentence_embeddings.__main__.model_folder", lambda: None)
    assert main([]) == 2
    assert INSTALL in capsys.readouterr().err
