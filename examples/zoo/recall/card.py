"""The model card of family `recall`, filled with the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Qwen3ForCausalLM

CARD = """\
# recall: a small Qwen3 that finds records in long contexts

A reference model for judging what a compressed cache forgets. It knows no language: its words are
keys, values and five marks, its texts are haystacks in which every record may be the one asked for.

| | |
| --- | --- |
| architecture | `Qwen3ForCausalLM`, {layers} layers, hidden {hidden}, FFN {ffn} |
| attention | {heads} query heads, {kv_heads} KV heads of width {head}; RoPE, theta {theta:g} |
| context | {context} tokens; trained on haystacks of up to {longest} |
| parameters | {parameters:.2f} M, embedding and head tied, fp16 |
| tokenizer | one token per word, {vocabulary} entries; bos first, eos after an answer |

## Training

Data: haystacks drawn by the functions that also draw the evaluation sets
(`effc/evaluate/tasks/recall.py`), from other seeds. Several questions follow one haystack; the
loss is on answers only. Haystacks grow from {shortest} to {longest} tokens, by a factor of two
whenever the model answers {bar:.0%} of the questions of every single-hop task right that it has not
seen before.

| | |
| --- | --- |
| tokens | {tokens_seen:,} in {steps:,} steps |
| optimizer | Muon for matrices, AdamW for the rest; trapezoidal rate, ending at zero |
| time | {minutes} processor minutes on {machine}, {thread_text}, bf16 autocast |
| seed | {seed} |
| last training loss | {final_train_loss} nats per token of an answer (100 steps) |

`python -m examples.zoo train recall` repeats it. The budget is in minutes, so a run on another
machine takes another number of steps.

## Scores

Exact match, weights as shipped, computed in fp32, greedy; errors are standard errors. Prompts of
256, 1,024 and 4,096 tokens and answers early, in the middle and late in the haystack take turns.

{table}

*Shortcut* answers with the content of the last record. `recall.two-hop` is not trained to
competence: a chain of two look-ups within one token is at the limit of four layers.
"""


def render(
    model: Qwen3ForCausalLM, training: Mapping[str, Any], table: str, shortest: int, bar: float
) -> str:
    """Return the card's text.

    Args:
        model: The trained model.
        training: The run's record, as written beside the weights.
        table: The scores as a Markdown table.
        shortest: Tokens of the first stage's haystacks.
        bar: Accuracy from which the next stage begins.
    """
    settings = model.config
    threads = training["threads"]
    return CARD.format(
        **training,
        layers=settings.num_hidden_layers,
        hidden=settings.hidden_size,
        ffn=settings.intermediate_size,
        heads=settings.num_attention_heads,
        kv_heads=settings.num_key_value_heads,
        head=settings.head_dim,
        theta=settings.to_dict()["rope_parameters"]["rope_theta"],
        context=settings.max_position_embeddings,
        vocabulary=settings.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        shortest=shortest,
        bar=bar,
        thread_text="one thread" if threads == 1 else f"{threads} threads",
        table=table,
    )
