"""The tables of the policy language and their keys: one list for the reader and the JSON Schema.

A method's options are no keys of the language; they come from the table of methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effc.spec.checks import (
    Key,
    boolean,
    device,
    integer,
    memory,
    number,
    one_of,
    selector,
    text,
    texts,
)
from effc.spec.schema import DTYPES, GATES, STREAM_KV, STREAM_WEIGHTS, VERIFY

SETTINGS: Mapping[str, Mapping[str, Key]] = {
    "target": {
        "device": device("where the model will run"),
        "memory": memory("device bytes for weights, cache and activations at `context`"),
        "context": integer("tokens that the cache must hold", 1),
        "batch": integer("sequences at once", 1),
        "dtype": one_of("dtype of what is not compressed", DTYPES),
        "threads": integer("CPU threads", 1),
        "allow_reference": boolean("accept the reference where a faster kernel cannot run"),
    },
    "quality": {
        "data": text("a text file; without one, text sampled from the original model"),
        "tokens": integer("tokens to measure", 1),
        "max_kl": number("bound of the mean KL divergence, nats per token", 0),
        "max_perplexity_ratio": number("bound of the perplexity over the original's", 0),
        "min_top1": number("least share of tokens on which both models agree", 0, 1),
        "max_time_ratio": number("bound of the time per token over the original's", 0),
    },
    "stream": {
        "weights": one_of("where weights live while the model runs", STREAM_WEIGHTS),
        "kv": one_of("where the cache lives while the model runs", STREAM_KV),
    },
}
"""Tables that appear once and only set things: key -> what it may hold."""

DRAFT: Mapping[str, Key] = {
    "drafters": texts("what proposes tokens: built-in drafters and folders", '["ngram"]'),
    "verify": one_of("how drafted tokens are accepted", VERIFY),
}
"""Keys of `[draft]` besides `select`."""

RULE: Mapping[str, Key] = {
    "where": selector("the sites that the rule means"),
    "optional": boolean("whether matching no site is fine"),
    "gate": one_of("what happens if the rule breaks a bound of [quality]", GATES),
}
"""Keys of every rule besides `method`."""


@dataclass(frozen=True)
class Slot:
    """A key that names a method; the options of the method stand beside it.

    Attributes:
        aspect: the table of methods.
        key: the key that holds the name.
        label: the place in words, for messages.
        help: one line for editors.
        alternatives: keys that make the method dispensable.
    """

    aspect: str
    key: str
    label: str
    help: str
    alternatives: tuple[str, ...] = ()


METHODS: Mapping[str, Slot] = {
    "quantize": Slot("quantize", "method", "[[quantize]]", "how weights are stored"),
    "kv": Slot("kv", "method", "[[kv]]", "which cache entries stay", ("store",)),
    "tokens": Slot("tokens", "method", "[[tokens]]", "which input tokens stay"),
    "draft": Slot("draft", "select", "[draft]", "how drafters are chosen"),
}
"""Tables that name a method."""

STORE = Slot("store", "method", "[[kv]] store", "how cache entries are stored")
"""The table inside a rule of `[[kv]]`."""

SLOTS = (*METHODS.values(), STORE)
"""Every place for the name of a method."""

RULES = ("quantize", "kv", "tokens")
"""Tables that appear once per rule."""

TABLES = ("version", "target", "quality", *RULES, "draft", "stream")
"""Everything that may stand at the top, in the order of `reference.md`."""
