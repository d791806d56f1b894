"""Evaluations that cannot be made, and images that nobody can see."""

from __future__ import annotations

from pathlib import Path

from tests.messages.case import Case, both, edit_json, write

RECALL = "effc evaluate model --task recall.needle"


def _tokenizer(folder: Path) -> None:
    """A tokenizer of few words beside the model."""
    from examples.zoo.words import word_tokenizer

    word_tokenizer([f"w{n}" for n in range(100)]).save_pretrained(folder / "model")


_END = edit_json("model/generation_config.json", eos_token_id=1)

EVALUATION = (
    Case("a task is misspelt", command="effc evaluate model --task recall.neddle"),
    Case("no task is named", command="effc evaluate model"),
    Case("perplexity of no text", command="effc evaluate model --task perplexity"),
    Case("a divergence from nothing", command="effc evaluate model --task kl --data text.txt",
         spoil=write("text.txt", "w1 w2 w3")),
    Case("the words of a task mean nothing", command=RECALL),
    Case("a task has words that the model lacks", command=RECALL, spoil=both(_tokenizer, _END)),
    Case("an ablation is unknown", command=f"{RECALL} --ablate random-heads=.5"),
    Case("an ablation takes more than all", command=f"{RECALL} --ablate random-kv=1.5"),
    Case("an artifact is ablated", command="effc evaluate out --task recall.needle "
         "--ablate random-kv=.5"),
    Case("an image for a model that only reads",
         command="effc run out --image cat.png --prompt-ids 5,6"),
)  # fmt: skip
