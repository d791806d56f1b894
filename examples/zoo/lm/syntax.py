"""How often a continuation is Python: prompts from held-out files, judged by Python's parser."""

from __future__ import annotations

import ast
import codeop
import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo.lm.data import EOS_ID, PAD_ID, Document, decode, encode
from examples.zoo.lm.likelihood import Measure
from examples.zoo.lm.ngram import KneserNey

NEW_TOKENS = 128
TEMPERATURE = 0.8
CONTEXT_CHARACTERS = 1000
BATCH = 50

# Prompts to their continuations' tokens, greedy or sampled from a seed.
Writer = Callable[[Sequence[list[int]], bool], list[list[int]]]


@dataclass(frozen=True)
class Prompt:
    """The lines before a top-level definition in a held-out file, and its header line."""

    before: str
    header: str


def collect_prompts(documents: Sequence[Document], count: int) -> list[Prompt]:
    """Choose definitions from the documents, the same ones at every call."""
    found = [prompt for document in documents for prompt in _definitions(document.text)]
    random.Random(0).shuffle(found)
    return found[:count]


def _definitions(text: str) -> list[Prompt]:
    try:
        with warnings.catch_warnings(action="ignore"):
            body = ast.parse(text).body
    except (SyntaxError, ValueError):
        # The library's test suite holds files that are broken on purpose.
        return []
    lines = text.splitlines(keepends=True)
    prompts = []
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        header = lines[node.lineno - 1]
        if header.rstrip().endswith(":") and node.body[0].lineno > node.lineno:
            before = "".join(lines[: node.lineno - 1])[-CONTEXT_CHARACTERS:]
            # Begin at a line's start.
            prompts.append(Prompt(before[before.find("\n") + 1 :], header))
    return prompts


def is_python(header: str, continuation: str, ended: bool) -> bool:
    """Judge a definition that a model continued.

    The text counts if its last complete statement goes beyond the header and is no mere
    docstring, everything up to there parses, and what follows is unfinished but not wrong.

    Args:
        header: The definition's first line, with its line break.
        continuation: What the model wrote after it.
        ended: Whether the model ended the text; else its last line may be cut short.
    """
    if not ended:
        continuation = continuation[: continuation.rfind("\n") + 1]
    text = header + continuation
    with warnings.catch_warnings(action="ignore"):
        try:
            codeop.compile_command(text, symbol="exec")
        except (SyntaxError, ValueError, OverflowError):
            return False
        return _statements_in_complete_part(text) > 1


def _statements_in_complete_part(text: str) -> int:
    """Count the statements, docstrings aside, of the longest run of whole lines that parses."""
    lines = text.splitlines(keepends=True)
    for end in range(len(lines), 1, -1):
        try:
            nodes = list(ast.walk(ast.parse("".join(lines[:end]))))
        except (SyntaxError, ValueError):
            continue
        return sum(isinstance(node, ast.stmt) and not _is_docstring(node) for node in nodes)
    return 0


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def measure_syntax(
    writer: Writer, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt], sample: bool
) -> Measure:
    """Return the share of continuations that are Python, with its binomial standard error."""
    encoded = [encode(tokenizer, prompt.before + prompt.header) for prompt in prompts]
    right = 0
    for prompt, tokens in zip(prompts, writer(encoded, sample), strict=True):
        kept, ended = until_eos(tokens)
        right += is_python(prompt.header, decode(tokenizer, kept), ended)
    share = right / len(prompts)
    return Measure(share, math.sqrt(share * (1 - share) / len(prompts)))


def until_eos(tokens: list[int]) -> tuple[list[int], bool]:
    """Return the tokens before the first eos, and whether there was one."""
    ended = EOS_ID in tokens
    return tokens[: tokens.index(EOS_ID)] if ended else tokens, ended


def model_writer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Writer:
    """Continue prompts with a transformers model."""

    @torch.inference_mode()
    def write(prompts: Sequence[list[int]], sample: bool) -> list[list[int]]:
        torch.manual_seed(0)
        choice = {"temperature": TEMPERATURE, "top_k": 0} if sample else {}
        written: list[list[int]] = []
        for start in range(0, len(prompts), BATCH):
            rows = [[tokenizer.bos_token_id, *ids] for ids in prompts[start : start + BATCH]]
            batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
            length = batch["input_ids"].shape[1]
            new = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=NEW_TOKENS,
                pad_token_id=PAD_ID,
                do_sample=sample,
                **choice,
            )
            written += new[:, length:].tolist()
        return written

    return write


def ngram_writer(model: KneserNey) -> Writer:
    """Continue prompts with an n-gram model."""

    def write(prompts: Sequence[list[int]], sample: bool) -> list[list[int]]:
        rng = np.random.default_rng(0)
        return [_continue(model, list(ids), rng if sample else None) for ids in prompts]

    return write


def _continue(model: KneserNey, tokens: list[int], rng: np.random.Generator | None) -> list[int]:
    first = len(tokens)
    while len(tokens) < first + NEW_TOKENS and tokens[-1] != EOS_ID:
        share = model.distribution(tokens)
        if rng is None:
            tokens.append(int(share.argmax()))
        else:
            share = share ** (1 / TEMPERATURE)
            tokens.append(int(rng.choice(len(share), p=share / share.sum())))
    return tokens[first:]
