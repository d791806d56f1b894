"""Evaluate family `lm` beside an untrained copy of itself, a 5-gram and a unigram model.

Nothing here is fitted or chosen on the held-out split.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from examples.zoo.lm import card, data, likelihood, syntax
from examples.zoo.lm.likelihood import Likelihood, Measure, Scorer
from examples.zoo.lm.model import build
from examples.zoo.lm.ngram import KneserNey
from examples.zoo.lm.syntax import Writer

PROMPTS = 200
EXAMPLES = ("def fib(n):\n", "import os\n\nclass ", "def read(path):\n")


@dataclass(frozen=True)
class Scores:
    """One row of the table."""

    name: str
    likelihood: Likelihood
    greedy: Measure
    sampled: Measure


def evaluate(checkpoint: Path, limit: int | None = None, write_card: bool = False) -> None:
    """Print the scores of a checkpoint and of its baselines.

    Args:
        checkpoint: A folder as `train` writes it.
        limit: Use this many held-out files and prompts only.
        write_card: Also write the figures and sample texts into the folder's README.md.
    """
    model, tokenizer = load(checkpoint)
    corpus = data.load_corpus()
    training = json.loads((checkpoint / "training.json").read_text())
    print(describe_corpus(corpus, training))
    held_out = corpus.held_out[:limit]
    prompts = syntax.collect_prompts(corpus.held_out, limit or PROMPTS)
    header = [
        f"{len(held_out)} held-out files; parse rates over {len(prompts)} prompts",
        *TABLE_HEAD,
    ]
    print("\n".join(header), flush=True)
    lines = []
    for name, scorer, writer in contestants(model, tokenizer, corpus):
        scores = score(name, scorer, writer, tokenizer, held_out, prompts)
        lines.append(table_row(scores))
        print(lines[-1], flush=True)
    examples = write_examples(model, tokenizer)
    for example in examples:
        print(f"\n--- {example.how} after {example.prompt!r}\n{example.text}")
    if write_card:
        table = "\n".join([*TABLE_HEAD, *lines])
        text = card.render(model, training, table, len(held_out), len(prompts), examples)
        (checkpoint / "README.md").write_text(text)


def load(checkpoint: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a checkpoint; its fp16 weights compute in fp32."""
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(checkpoint)


def describe_corpus(corpus: data.Corpus, training: Mapping[str, Any]) -> str:
    """Say which text is used, and whether it is the text that the model was trained on."""
    lines = [f"corpus: Python {platform.python_version()}, sha256 {corpus.digest}"]
    if corpus.digest != training["corpus_sha256"]:
        lines.append(
            f"note: this is not the corpus of the training run (Python {training['python']}, "
            f"sha256 {training['corpus_sha256']}); the figures will differ from the card's"
        )
    return "\n".join(lines)


def contestants(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: data.Corpus
) -> Iterator[tuple[str, Scorer, Writer]]:
    """Give the model and its baselines one at a time, so that only one is held in memory."""
    for name, net in (("lm", model), ("lm, untrained", build(model.config, seed=0).eval())):
        yield name, likelihood.model_scorer(net), syntax.model_writer(net, tokenizer)
    train = fit_documents(tokenizer, corpus.train)
    for name, order in (("5-gram, modified Kneser-Ney", 5), ("unigram", 1)):
        net = KneserNey(train, order, len(tokenizer), data.BOS_ID)
        yield name, likelihood.ngram_scorer(net), syntax.ngram_writer(net)


def fit_documents(
    tokenizer: PreTrainedTokenizerFast, documents: list[data.Document]
) -> list[list[int]]:
    """Encode whole documents, closed by eos, for fitting and for scoring."""
    return [[*data.encode(tokenizer, document.text), data.EOS_ID] for document in documents]


def score(
    name: str,
    scorer: Scorer,
    writer: Writer,
    tokenizer: PreTrainedTokenizerFast,
    held_out: list[data.Document],
    prompts: list[syntax.Prompt],
) -> Scores:
    """Measure everything that the table shows about one model."""
    tokens = fit_documents(tokenizer, held_out)
    sizes = [len(document.text.encode()) for document in held_out]
    return Scores(
        name=name,
        likelihood=likelihood.measure_likelihood(scorer, tokens, sizes),
        greedy=syntax.measure_syntax(writer, tokenizer, prompts, sample=False),
        sampled=syntax.measure_syntax(writer, tokenizer, prompts, sample=True),
    )


TABLE_HEAD = (
    "| model | perplexity per token | bits per byte | token accuracy | greedy parses | "
    "sampled parses |",
    "| --- | --- | --- | --- | --- | --- |",
)


def table_row(scores: Scores) -> str:
    """Format one model's scores, each with its standard error."""
    cells = [
        scores.name,
        scores.likelihood.perplexity.text(2),
        scores.likelihood.bits_per_byte.text(3),
        scores.likelihood.accuracy.text(3),
        scores.greedy.text(3),
        scores.sampled.text(3),
    ]
    return "| " + " | ".join(cells) + " |"


def write_examples(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> list[card.Example]:
    """Continue the example prompts, greedily and sampled."""
    return [
        card.Example(how, prompt, prompt + complete(model, tokenizer, prompt, sample))
        for prompt in EXAMPLES
        for how, sample in (("Greedy", False), ("Sampled", True))
    ]


def complete(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    sample: bool = False,
) -> str:
    """Continue one prompt."""
    tokens = syntax.model_writer(model, tokenizer)([data.encode(tokenizer, prompt)], sample)[0]
    return data.decode(tokenizer, syntax.until_eos(tokens)[0])
