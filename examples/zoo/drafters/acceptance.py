"""How often a target accepts what drafters propose, along text that the target itself writes.

Speculative sampling accepts a drafted token x with probability min(1, p(x) / q(x)), p being the
target's and q the drafter's distribution (Leviathan et al. 2023; Chen et al. 2023). So a token
drafted after a given prefix is accepted with probability sum_v min(p(v), q(v)), and it is accepted
*and* x with probability min(p(x), q(x)). Hence a text that is drawn from p, each of its tokens
weighted with min(p, q) / p, stands for all drafts that the target would accept: the figures below
are exact expectations over drafts and verdicts, and only the text is a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo.lm.data import BOS_ID, EOS_ID, PAD_ID, Document, encode
from examples.zoo.lm.likelihood import Measure, ratio

PROMPT_TOKENS = 96
NEW_TOKENS = 64
DRAFT_TOKENS = 4
BATCH = 16

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Text:
    """A held-out prompt, with bos, and what the target wrote after it."""

    prompt: list[int]
    written: list[int]


@dataclass(frozen=True)
class Agreement:
    """What one drafter makes of one text, at each of its written tokens.

    Attributes:
        overlap: sum_v min(p(v), q(v)): the chance that a token drafted here is accepted.  [T]
        weight: min(1, q(x) / p(x)) of the token that stands here.  [T]
    """

    overlap: Floats
    weight: Floats


def prompts(
    tokenizer: PreTrainedTokenizerFast, documents: Sequence[Document], count: int | None
) -> list[list[int]]:
    """Cut one prompt from anywhere in each document, the same ones at every call."""
    rng = np.random.default_rng(0)
    found = []
    for index in rng.permutation(len(documents)):
        tokens = encode(tokenizer, documents[index].text)
        if len(tokens) >= PROMPT_TOKENS:
            start = int(rng.integers(len(tokens) - PROMPT_TOKENS + 1))
            found.append([BOS_ID, *tokens[start : start + PROMPT_TOKENS]])
    return found[:count]


@torch.inference_mode()
def write(target: LlamaForCausalLM, rows: Sequence[list[int]], seed: int = 0) -> list[Text]:
    """Let the target continue prompts of one length at temperature 1, to its eos if it comes."""
    torch.manual_seed(seed)
    texts = []
    for start in range(0, len(rows), BATCH):
        part = torch.tensor(rows[start : start + BATCH])
        new = target.generate(
            input_ids=part,
            attention_mask=torch.ones_like(part),
            max_new_tokens=NEW_TOKENS,
            pad_token_id=PAD_ID,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
        for prompt, row in zip(part.tolist(), new[:, part.shape[1] :].tolist(), strict=True):
            end = row.index(EOS_ID) + 1 if EOS_ID in row else len(row)
            texts.append(Text(prompt, row[:end]))
    return texts


@torch.inference_mode()
def agreement(
    target: LlamaForCausalLM, drafters: Mapping[str, LlamaForCausalLM], texts: Sequence[Text]
) -> dict[str, list[Agreement]]:
    """Compare each drafter's distributions with the target's at every written token."""
    found: dict[str, list[Agreement]] = {name: [] for name in drafters}
    for text in texts:
        p = _distributions(target, text)
        for name, drafter in drafters.items():
            found[name].append(compare(p, _distributions(drafter, text), text.written))
    return found


def _distributions(model: LlamaForCausalLM, text: Text) -> Tensor:
    """Return the distribution of every written token, given all before it.  [T, V]"""
    ids = torch.tensor([[*text.prompt, *text.written[:-1]]])
    logits = model(input_ids=ids, use_cache=False).logits[0, -len(text.written) :]
    return logits.double().softmax(-1)


def compare(p: Tensor, q: Tensor, written: Sequence[int]) -> Agreement:
    """Compare two distributions [T, V] at each written token."""
    both = torch.minimum(p, q)
    place = torch.arange(len(written)), torch.tensor(written)
    return Agreement(both.sum(-1).numpy(), (both[place] / p[place]).numpy())


def accepted_lengths(place: Agreement, length: int = DRAFT_TOKENS) -> Floats:
    """Return the expected number of accepted tokens of a draft that starts at each place.

    The first n tokens are accepted with probability E[w_1 ... w_(n-1) overlap_n], the text being
    drawn from the target.  [T - length + 1], or nothing of a text shorter than a draft
    """
    starts = max(0, len(place.overlap) - length + 1)
    reached = np.ones(starts)
    accepted = np.zeros(starts)
    for step in range(length):
        here = slice(step, step + starts)
        accepted += reached * place.overlap[here]
        reached *= place.weight[here]
    return accepted


def mean_overlap(places: Sequence[Agreement]) -> Measure:
    """Return the mean acceptance per token; texts, not tokens, count as drawn."""
    return _mean([place.overlap for place in places])


def mean_length(places: Sequence[Agreement]) -> Measure:
    """Return the mean number of accepted tokens per draft."""
    return _mean([accepted_lengths(place) for place in places])


def margin(places: Sequence[Agreement], others: Sequence[Agreement]) -> Measure:
    """Return how much more of the same texts one drafter has accepted, as a paired difference."""
    pairs = zip(places, others, strict=True)
    return _mean([one.overlap - other.overlap for one, other in pairs])


def _mean(rows: Sequence[Floats]) -> Measure:
    return ratio([float(row.sum()) for row in rows], [len(row) for row in rows])
