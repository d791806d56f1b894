"""The model card of a drafter, filled with the figures of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from transformers import LlamaForCausalLM

from examples.zoo.drafters.acceptance import DRAFT_TOKENS, NEW_TOKENS, PROMPT_TOKENS
from examples.zoo.drafters.model import Cost

DATA = {
    "code": "Data: the statements of {train_documents:,} source files of Python {python}'s "
    "standard library, without docstrings and comments.",
    "prose": "Data: the docstrings and blocks of comments of {train_documents:,} source files of "
    "Python {python}'s standard library.",
    "numbers": "Data: {train_documents:,} generated documents of four tables each: products, sums, "
    "remainders, progressions, powers, recurrences, codes, bits, fractions, numbers at random.",
}

CARD = """\
# draft-{domain}: a drafter of `lm` for {domain}

One of three drafters for speculative decoding of [lm](../../lm/checkpoint/README.md). Each knows
one kind of text: code, prose or numbers. They are for judging methods that choose a drafter.

| | |
| --- | --- |
| architecture | `LlamaForCausalLM`, {layers} layers, hidden {hidden}, FFN {ffn} |
| attention | {heads} query heads, {kv_heads} KV head of width {head}; RoPE |
| context | {context} tokens; the last fifth of the training used rows of that length |
| tokenizer | that of `lm`, byte for byte |
| weights | fp16, embedding and head tied |

| per token | `lm` | drafter | share |
| --- | --- | --- | --- |
| parameters | {target.parameters:,} | {own.parameters:,} | {share_parameters:.3f} |
| FLOPs, attention to the past aside | {target.flops:,} | {own.flops:,} | {share_flops:.3f} |
| bytes of weights read, fp16, batch 1 | {target.bytes:,} | {own.bytes:,} | {share_bytes:.3f} |

{head_share:.0%} of what a drafter computes and reads is the head over all {vocabulary} tokens.

## Training

{data}

Files are held out as for `lm`, by a hash of their path, and tables by a hash of their text.
The loss is KL(lm || drafter) along this text, so the drafter learns what `lm` expects there, right
or wrong. The embedding starts as the principal axes of `lm`'s, all else at random.

| | |
| --- | --- |
| corpus | sha256 `{corpus_sha256}` |
| tokens | {tokens_seen:,} seen, of a stream of {train_tokens:,} ({epochs:.2f} passes) |
| steps | {steps:,} of 2048 tokens; rows of 256, then {context} tokens |
| optimizer | Muon for matrices, AdamW for the rest; trapezoidal rate, ending at zero |
| time | {minutes} minutes of processor time on {machine}, bf16 autocast |
| seed | {seed} |
| last training loss | {final_train_loss} nats per token (100 steps) |

`python -m examples.zoo train draft-{domain}` repeats it. The budget is in minutes, so a run on
another machine takes another number of steps.

## What `lm` accepts

`lm` continues {counts} held-out prompts of {prompt_tokens} tokens by up to {new_tokens} of its
own, at temperature 1. In each cell: the acceptance per drafted token, sum_v min(p(v), q(v)), then
the expected number of accepted tokens of a draft of {draft_tokens} (at most {draft_tokens}; the
token that the target adds is not counted). Errors are standard errors over documents. Both are
expectations over all drafts; places, not rounds, are weighted equally.

{table}

Differences of acceptance per token on the same texts, with paired standard errors:

{margins}

Weights as shipped, computed in fp32. `python -m examples.zoo evaluate draft-{domain}` repeats the
tables and says so if this Python's library is another one than that of the training run.

## Licence of the training data

Text from CPython's library source is under the Python Software Foundation License.
"""


def render(
    model: LlamaForCausalLM,
    training: Mapping[str, Any],
    costs: tuple[Cost, Cost],
    table: str,
    margins: str,
    counts: Mapping[str, int],
) -> str:
    """Return the card's text.

    Args:
        model: The trained drafter.
        training: The run's record, as written beside the weights.
        costs: What a token costs the target and the drafter.
        table: Every drafter in every domain, as a Markdown table.
        margins: Each domain's own drafter against the others, likewise.
        counts: The number of held-out documents behind the figures of each domain.
    """
    settings = model.config
    target, own = costs
    return CARD.format(
        **training,
        data=textwrap.fill(DATA[training["domain"]].format(**training), width=100),
        layers=settings.num_hidden_layers,
        hidden=settings.hidden_size,
        ffn=settings.intermediate_size,
        heads=settings.num_attention_heads,
        kv_heads=settings.num_key_value_heads,
        head=settings.head_dim,
        context=settings.max_position_embeddings,
        vocabulary=settings.vocab_size,
        head_share=settings.vocab_size * settings.hidden_size / own.parameters,
        target=target,
        own=own,
        share_parameters=own.parameters / target.parameters,
        share_flops=own.flops / target.flops,
        share_bytes=own.bytes / target.bytes,
        epochs=training["tokens_seen"] / training["train_tokens"],
        counts=", ".join(f"{count} ({domain})" for domain, count in counts.items()),
        prompt_tokens=PROMPT_TOKENS,
        new_tokens=NEW_TOKENS,
        draft_tokens=DRAFT_TOKENS,
        table=table,
        margins=margins,
    )
