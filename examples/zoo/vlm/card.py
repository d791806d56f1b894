"""The model card of family `vlm`, filled with the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import LlavaForConditionalGeneration

CARD = """\
# vlm: a small LLaVA that answers questions about rendered scenes

A reference model for judging what is lost when visual tokens are dropped, merged or their cache
is compressed. Its world is coloured shapes and digits on a soft background; most of the visual
tokens of a picture show nothing else than their neighbours.

| | |
| --- | --- |
| architecture | `LlavaForConditionalGeneration` |
| tower | CLIP with class token, {tower_layers} layers of width {tower_width}; {side} x {side} \
pixels, patches of {patch}, {image_tokens} visual tokens per image |
| decoder | Llama, {layers} layers, hidden {hidden}, FFN {ffn} |
| attention | {heads} query heads, {kv_heads} KV heads of width {head}; RoPE, theta {theta:g} |
| context | {context} tokens: two images and a question |
| parameters | {parameters:.2f} M, embedding and head tied, fp16 |
| tokenizer | one token per word, {vocabulary} entries; bos first, eos after an answer |

Features are those of the tower's last layer; LLaVA's second to last would leave one layer unread.

## Training

Data: scenes and questions drawn by the functions that also draw the evaluation sets
(`effc/evaluate/tasks/scenes.py`), from other seeds. The tower first learns to say of every patch
what it shows and where it is; its heads are then thrown away. After that everything learns from
questions. An image is followed by up to 16 of them, which do not see one another; the loss is on
answers only. The tower joins in after a fifth of the questions.

| | |
| --- | --- |
| tokens | {tokens_seen:,} in {steps:,} steps; {images_seen:,} images |
| optimizer | Muon for matrices, AdamW for the rest; trapezoidal rate, ending at zero |
| time | {warmup_minutes} + {minutes} processor minutes on {machine}, {thread_text}, bf16 autocast |
| seed | {seed} |
| last training loss | {final_train_loss} nats per token of an answer (100 steps) |

`python -m examples.zoo train vlm` repeats it. The budget is in minutes, so a run on another
machine takes another number of steps.

## Scores

Weights as shipped, computed in fp32, greedy.

{table}
*Other picture*: the trained model before the pictures of another item, so that only the question
helps. It may say something impossible, so it can fall below chance. *Shortcut* is the likeliest
answer given the question; all answers are equally likely by construction.
"""


def render(model: LlavaForConditionalGeneration, training: Mapping[str, Any], table: str) -> str:
    """Return the card's text.

    Args:
        model: The trained model.
        training: The run's record, as written beside the weights.
        table: The scores as a Markdown table.
    """
    settings: Any = model.config
    text, tower = settings.text_config, settings.vision_config
    threads = training["threads"]
    return CARD.format(
        **training,
        tower_layers=tower.num_hidden_layers,
        tower_width=tower.hidden_size,
        side=tower.image_size,
        patch=tower.patch_size,
        image_tokens=settings.image_seq_length,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        ffn=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head=text.head_dim,
        theta=text.to_dict()["rope_parameters"]["rope_theta"],
        context=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        thread_text="one thread" if threads == 1 else f"{threads} threads",
        table=table,
    )
