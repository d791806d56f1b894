"""The model card of family `video`, filled with the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import LlavaForConditionalGeneration

CARD = """\
# video: a small LLaVA that reads clips

A reference model for judging compression methods, loose verification among them: what it says
mixes words that the clip decides with filler that it is free to choose.

| | |
| --- | --- |
| architecture | `LlavaForConditionalGeneration`: CLIP tower, projector, Llama decoder |
| tower | {tower_layers} layers of width {tower_width}; frames of {side} x {side} pixels, patches \
of {patch} x {patch}, {frame_tokens} visual tokens each |
| decoder | {layers} layers, hidden {hidden}, FFN {ffn}; {heads} query heads, {kv_heads} KV heads \
of width {head}; RoPE |
| context | {context} tokens: 16 frames and a caption |
| parameters | {parameters:.2f} M, embedding and head tied, fp16 |
| tokenizer | {vocabulary} words, one token each |

## Clips

8 or 16 frames on a grid of 5 x 5 cells, each as large as a patch. One to three objects appear one
after another in the first half and move one cell per frame (`fast`) or per two frames
(`slowly`), over a soft grey and up to three patches of noise that never change. What leaves at an
edge comes back at the opposite one, so one frame says nothing about directions.

| task | question | answer |
| --- | --- | --- |
| `clip.direction` | which way does the red object move ? | left |
| `clip.count` | how many objects move left ? | two |
| `clip.colour-order` | which colour came first ? / which colour moves up ? | blue |
| `clip.caption` | describe the clip . | a sentence, see below |

Captions are right if their visual words (counts, colours, shapes, directions, speeds) are right
and in order. Filler is drawn at random among synonyms, some a word longer than others.

## Training

| | |
| --- | --- |
| data | clips drawn anew for each step (`effc/evaluate/tasks/moving.py`), seeds below 1,000,000 |
| stages | patches, motion, questions on 8 frames, questions on 8 and 16 frames; next at 90 % |
| size | {steps:,} steps of 16 clips, {clips:,} clips, {tokens_seen:,} tokens |
| optimizer | Muon for matrices, AdamW for the rest; trapezoidal rate, ending at zero |
| time | {minutes} processor minutes on {machine}, {thread_text}, bf16 autocast |
| seed | {seed} |
| last training loss | {final_train_loss} (100 steps), hints included |

The loss is on answers only, filler at a fifth of the weight of other words. Beside it, heads that
are thrown away afterwards teach visual tokens what they show, where the object was one and two
frames before, how it moves, and which in order it is. `python -m examples.zoo train video`
repeats the run; the budget is in minutes, so another machine takes another number of steps.

## Scores

{table}
*blind*: the trained model, all frames grey. *last frame*: the trained model, every frame replaced
by the last one. *shortcut*: each object moves to the edge that it is nearest to in the last frame.
Both know the colours that are there, so one in three colours is right by luck.

## Captions

Greedy, the first of the evaluation seed.

{examples}
`python -m examples.zoo evaluate video --card` repeats scores and captions.
"""


@dataclass(frozen=True)
class Example:
    """A caption as the generator wrote it and as the model says it."""

    expected: str
    said: str


def render(
    model: LlavaForConditionalGeneration,
    training: Mapping[str, Any],
    table: str,
    examples: Sequence[Example],
) -> str:
    """Return the card's text.

    Args:
        model: The trained model.
        training: The run's record, as written beside the weights.
        table: The scores as a Markdown table.
        examples: Captions.
    """
    text, tower = model.config.text_config, model.config.vision_config
    threads = training["threads"]
    return CARD.format(
        **training,
        tower_layers=tower.num_hidden_layers,
        tower_width=tower.hidden_size,
        side=tower.image_size,
        patch=tower.patch_size,
        frame_tokens=(tower.image_size // tower.patch_size) ** 2,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        ffn=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head=text.head_dim,
        context=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        thread_text="one thread" if threads == 1 else f"{threads} threads",
        table=table,
        examples="\n".join(map(_shown, examples)),
    )


def _shown(example: Example) -> str:
    return f"    expected  {example.expected}\n    said      {example.said}\n"
