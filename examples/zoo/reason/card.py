"""The model card of family `reason`, filled with the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import Qwen3ForCausalLM

from effc.evaluate.scoring import TaskResult

CARD = """\
# reason: a small Qwen3 that thinks aloud

A reference model for judging what compression does to chains of thought. It knows no language:
it carries out programs of updates modulo 7 and searches trees depth first, one step at a time,
and checks itself more often than it needs to, as reasoning models do.

| | |
| --- | --- |
| architecture | `Qwen3ForCausalLM`, {layers} layers, hidden {hidden}, FFN {ffn} |
| attention | {heads} query heads, {kv_heads} KV heads of width {head}; RoPE, theta {theta:g} |
| context | {context} tokens; trained on rows of up to about 600 |
| parameters | {parameters:.2f} M, embedding and head tied, fp16 |
| tokenizer | one token per word, {vocabulary} entries; bos first, eos after the answer |

## Training

Data: problems with traces, drawn by the functions that also draw the evaluation sets
(`effc/evaluate/tasks/reason.py`), from other seeds; no row is seen twice. The loss is on traces
only. Traces hold planted errors that a check catches (6 % of the steps), checks of right steps
(none to all) and up to three final checks. Problems grow from 3 statements or levels to 16 over
the first two fifths of the budget.

| | |
| --- | --- |
| tokens | {tokens_seen:,} in {steps:,} steps |
| optimizer | Muon for matrices, AdamW for the rest; trapezoidal rate, ending at zero |
| time | {minutes} processor minutes on {machine}, {thread_text}, bf16 autocast |
| seed | {seed} |
| last training loss | {final_train_loss} nats per token of a trace (100 steps) |

`python -m examples.zoo train reason` repeats it. The budget is in minutes, so a run on another
machine takes another number of steps. Part of the loss is the writer's free choice whether to
check, which nobody can predict.

## Scores

The final state must be right; the way to it does not count. Weights as shipped, computed in fp32,
greedy. Problems of sizes 4, 8, 12 and 16 take turns: statements of a program, nodes on the stack.

{scores}
*Shortcut* carries out the last two statements only, or descends to the first child without ever
turning back. *Chance* is one of all final states, or the stack of one of the tree's nodes.

How much the model writes, and how much would do (the same trace without checks and errors):

{lengths}
## Traces

{examples}"""


def render(
    model: Qwen3ForCausalLM,
    training: Mapping[str, Any],
    scores: str,
    lengths: str,
    results: Sequence[TaskResult],
) -> str:
    """Return the card's text.

    Args:
        model: The trained model.
        training: The run's record, as written beside the weights.
        scores: Accuracies as a Markdown table.
        lengths: Lengths as a Markdown table.
        results: What the model wrote; the first answer of each is shown.
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
        thread_text="one thread" if threads == 1 else f"{threads} threads",
        scores=scores,
        lengths=lengths,
        examples="\n".join(map(_example, results)),
    )


def _example(result: TaskResult) -> str:
    prompt, trace = (
        text.replace(" ; ", " ;\n") for text in (result.items[0].prompt, result.answers[0])
    )
    return f"`{result.task.name}`, problem and answer:\n\n```text\n{prompt}\n\n{trace}\n```\n"
