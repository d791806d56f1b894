"""The model card of family `lm`, filled with the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import LlamaForCausalLM

from examples.zoo.lm.syntax import NEW_TOKENS, TEMPERATURE

CARD = """\
# lm: a small Llama that writes Python

A reference model for judging compression methods: small enough to be checked in, trained well
enough that damage shows. It is of no use as a programming aid.

| | |
| --- | --- |
| architecture | `LlamaForCausalLM`, {layers} layers, hidden {hidden}, FFN {ffn} |
| attention | {heads} query heads, {kv_heads} KV heads of width {head}; RoPE, theta {theta:g} |
| context | {context} tokens; the last fifth of the training used rows of that length |
| parameters | {parameters:.2f} M, embedding and head tied, fp16 |
| tokenizer | byte-level BPE, {vocabulary} entries; bos first, eos closes a document |

## Training

Data: the source files of Python {python}'s standard library ({train_files} files for training,
{held_out_files} held out, chosen by a hash of the path below the library folder; exact copies
dropped; `encodings`, `pydoc_data` and build records left out). Tokenizer and model saw the
training files only. Now and then the training text is cut at a random character before it is
tokenized, so that a prompt may end anywhere.

| | |
| --- | --- |
| corpus | sha256 `{corpus_sha256}` |
| tokens | {tokens_seen:,} seen, of a stream of {train_tokens:,} ({epochs:.2f} passes) |
| steps | {steps:,} of 4096 tokens; rows of 256, 512, then {context} tokens |
| optimizer | Muon for matrices, AdamW for the rest; trapezoidal rate, ending at zero |
| time | {minutes} minutes on {machine}, {thread_text}, bf16 autocast |
| seed | {seed} |
| last training loss | {final_train_loss} nats per token (100 steps) |

`python -m examples.zoo train lm` repeats it. The budget is in minutes, so a run on another
machine takes another number of steps.

## Scores

{files} held-out files, weights as shipped, computed in fp32. Errors are standard errors: over
files for the first three columns, over {prompts} prompts for the last two.

{table}

*Perplexity* is per token of this tokenizer, eos included; every model scores the same tokens.
The model sees at most its context; each token but a file's first has half a context or all of the
file's earlier text before it. *Parses*: the model continues a top-level definition of a held-out
file (with up to 1000 characters before it) by {new_tokens} tokens, greedily or sampled at
temperature {temperature}. It counts if at least one new statement other than a docstring is
complete, all complete statements parse, and the rest is unfinished but not wrong. It does not
say that the code makes sense.

The baselines are fitted on the training files only and have no tuned parameters. Another Python
version has another library: `python -m examples.zoo evaluate lm` prints the digest of the corpus
it uses and says so if it is not the one above.

## Continuations

Greedy text soon falls into loops. Sampled means temperature {temperature}, seed 0. Each
continuation stops after {new_tokens} tokens.

{examples}
## Licence of the training data

The text is CPython's library source, under the Python Software Foundation License.
"""


@dataclass(frozen=True)
class Example:
    """A prompt and the text that begins with it."""

    how: str
    prompt: str
    text: str


def render(
    model: LlamaForCausalLM,
    training: Mapping[str, Any],
    table: str,
    files: int,
    prompts: int,
    examples: Sequence[Example],
) -> str:
    """Return the card's text.

    Args:
        model: The trained model.
        training: The run's record, as written beside the weights.
        table: The scores as a Markdown table.
        files: The number of held-out files behind the table.
        prompts: The number of prompts behind the parse rates.
        examples: What the model made of some prompts.
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
        epochs=training["tokens_seen"] / training["train_tokens"],
        thread_text="one thread" if threads == 1 else f"{threads} threads",
        table=table,
        files=files,
        prompts=prompts,
        new_tokens=NEW_TOKENS,
        temperature=TEMPERATURE,
        examples="\n".join(map(_fenced, examples)),
    )


def _fenced(example: Example) -> str:
    shown = example.prompt.replace("\n", "\\n")
    return f"{example.how} after `{shown}`:\n\n```python\n{example.text.rstrip()}\n```\n"
