"""Evaluate drafters: what `lm` accepts of each, in each domain, as a matrix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo.drafters import acceptance, card
from examples.zoo.drafters.acceptance import Agreement
from examples.zoo.drafters.domains import DOMAINS
from examples.zoo.drafters.model import config, cost
from examples.zoo.drafters.train import TARGET
from examples.zoo.lm import data
from examples.zoo.lm.evaluate import describe_corpus, load
from examples.zoo.lm.model import build

HERE = Path(__file__).parent
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Matrix:
    """Every drafter on the target's texts of every domain: `cells[domain][drafter]`."""

    cells: Mapping[str, Mapping[str, Sequence[Agreement]]]

    def table(self) -> str:
        """Return acceptance per token and tokens per draft, with standard errors."""
        drafters = list(next(iter(self.cells.values())))
        lines = [f"| drafter | {' | '.join(self.cells)} |", "| --- |" + " --- |" * len(self.cells)]
        for name in drafters:
            cells = (_cell(column[name]) for column in self.cells.values())
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def margins(self) -> str:
        """Return, for each domain, what its own drafter has over every other trained one."""
        lines = ["| domain | own drafter | other | difference |", "| --- | --- | --- | --- |"]
        for domain, column in self.cells.items():
            own = f"draft-{domain}"
            for other in column:
                if own in column and other not in (own, UNTRAINED):
                    difference = acceptance.margin(column[own], column[other])
                    lines.append(f"| {domain} | {own} | {other} | {difference.text(3)} |")
        return "\n".join(lines)


def _cell(places: Sequence[Agreement]) -> str:
    overlap, length = acceptance.mean_overlap(places), acceptance.mean_length(places)
    return f"{overlap.text(3)}; {length.text(2)}"


def evaluate(checkpoint: Path, limit: int | None = None, write_card: bool = False) -> None:
    """Print the matrix of this drafter, of the shipped ones of other domains, and an untrained one.

    Args:
        checkpoint: A folder as `train` writes it; it takes the place of its domain's drafter.
        limit: Use this many held-out documents of each domain only.
        write_card: Also write the figures into the folder's README.md.
    """
    target, tokenizer = load(TARGET)
    corpus = data.load_corpus()
    training = json.loads((checkpoint / "training.json").read_text())
    print(describe_corpus(corpus, training))
    drafters = load_drafters(checkpoint, training["domain"])
    matrix = measure(target, tokenizer, drafters, corpus, limit)
    counts = {domain: len(next(iter(column.values()))) for domain, column in matrix.cells.items()}
    print(f"documents: {counts}", matrix.table(), matrix.margins(), sep="\n\n")
    if write_card:
        model, costs = drafters[f"draft-{training['domain']}"], (cost(target), cost(build_one()))
        text = card.render(model, training, costs, matrix.table(), matrix.margins(), counts)
        (checkpoint / "README.md").write_text(text)


def build_one() -> LlamaForCausalLM:
    """Create an untrained drafter."""
    return build(config(), seed=0).eval()


def load_drafters(checkpoint: Path, domain: str) -> dict[str, LlamaForCausalLM]:
    """Load the drafters that there are, in the order of domains, and add an untrained one."""
    folders = {name: HERE / f"draft-{name}" for name in DOMAINS} | {domain: checkpoint}
    there = {name: folder for name, folder in folders.items() if (folder / "config.json").exists()}
    drafters = {f"draft-{name}": load(folder)[0] for name, folder in there.items()}
    return {**drafters, UNTRAINED: build_one()}


def measure(
    target: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    drafters: Mapping[str, LlamaForCausalLM],
    corpus: data.Corpus,
    limit: int | None = None,
) -> Matrix:
    """Let the target continue held-out prompts of every domain, and compare every drafter there."""
    cells = {}
    for domain, documents in DOMAINS.items():
        rows = acceptance.prompts(tokenizer, documents(corpus, True), limit)
        cells[domain] = acceptance.agreement(target, drafters, acceptance.write(target, rows))
    return Matrix(cells)
