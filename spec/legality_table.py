"""The data behind `effc.spec.legality`: which features go together, and why.

The most specific entry decides: a feature, then its method without options, then its aspect
("kv:*"), so that a method from another package falls under the rule of its aspect and is never left
undecided.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Whether two features go together.

    Attributes:
        first, second: features, or "aspect:*" for all of an aspect; their order means nothing.
        legal: whether a policy may ask for both.
        reason: what in their meaning decides it.
        reference: a "no" that only says that no fast kernel exists: `target.allow_reference`
            turns it into a slow "yes".
    """

    first: str
    second: str
    legal: bool
    reason: str
    reference: bool = False


ASPECTS = ("quantize", "store", "kv", "tokens", "draft", "stream", "device")

FEATURES: tuple[str, ...] = (
    "quantize:rtn",
    "quantize:rtn activations=int8",
    "store:int8",
    "device:cpu",
    "device:cuda",
)
"""What this version can do; every pair of these has a row and a column in the matrix."""


def _yes(first: str, second: str, reason: str) -> Pair:
    return Pair(first, second, True, reason)


def _no(first: str, second: str, reason: str, *, reference: bool = False) -> Pair:
    return Pair(first, second, False, reason, reference)


PAIRS: tuple[Pair, ...] = (
    # Methods of this version with targets.
    _yes(
        "quantize:rtn",
        "device:cpu",
        "packed weights are dequantized block by block; inputs are rounded to int8 per group, "
        'unless activations = "source"',
    ),
    _yes(
        "quantize:rtn",
        "device:cuda",
        "the Triton kernel unpacks weights in registers and takes the inputs in their own type",
    ),
    _no(
        "quantize:rtn activations=int8",
        "device:cuda",
        'the GPU kernel multiplies inputs in their own type (activations = "source"); only the '
        "reference rounds them to int8",
        reference=True,
    ),
    _yes(
        "store:int8",
        "device:cpu",
        "keys and values are decoded page by page inside attention",
    ),
    _yes(
        "store:int8",
        "device:cuda",
        "attention over pages has one implementation for all devices and formats so far, the "
        "reference: bytes are saved, time is not",
    ),
    # Aspects with one another: what also holds for methods of other packages.
    _yes(
        "quantize:*",
        "quantize:*",
        "each weight is stored by one method; the later rule wins where two select the same site",
    ),
    _yes(
        "quantize:*",
        "store:*",
        "weights and cache are different state: neither method reads what the other writes, and "
        "their errors add up",
    ),
    _yes(
        "quantize:*",
        "kv:*",
        "who stays in the cache is decided from the scores of the model as it is rewritten",
    ),
    _yes(
        "quantize:*",
        "tokens:*",
        "tokens are chosen from activations of the model as it is rewritten",
    ),
    _yes(
        "quantize:*",
        "draft:*",
        "the rewritten model is the target: drafts are verified against its own distribution",
    ),
    _yes("quantize:*", "stream:*", "the packed planes are what moves between the tiers"),
    _yes(
        "store:*",
        "store:*",
        "each cache site has formats of its own; the later rule wins where two select the same",
    ),
    _yes(
        "store:*",
        "kv:*",
        "who stays and how it is stored are separate: eviction frees slots, whatever they hold",
    ),
    _yes("store:*", "tokens:*", "tokens that were not kept never reach the cache"),
    _yes(
        "store:*",
        "draft:*",
        "drafted tokens are written and read in the same format as decoded ones",
    ),
    _yes("store:*", "stream:*", "the encoded planes are what moves between the tiers"),
    _yes(
        "kv:*",
        "kv:*",
        "each site keeps its own tokens; the later rule wins where two select the same site",
    ),
    _yes(
        "kv:*",
        "tokens:*",
        "tokens are chosen before they enter the cache; budgets count what has entered",
    ),
    _yes(
        "kv:*",
        "draft:*",
        "eviction acts on confirmed tokens at fixed counts, and drafts are cut there, so a "
        "rejected token leaves no trace",
    ),
    _yes("kv:*", "stream:*", "a page is dropped where it lies, on the device or on the host"),
    _no(
        "tokens:*",
        "tokens:*",
        "the second method would score tokens that the first has already removed",
    ),
    _yes(
        "tokens:*",
        "draft:*",
        "the prompt is shortened once, before anything is drafted",
    ),
    _yes("tokens:*", "stream:*", "a shorter prompt moves fewer pages, nothing else changes"),
    _no("draft:*", "draft:*", "a policy has one [draft]: every token is verified once"),
    _yes("draft:*", "stream:*", "one pass over the streamed weights verifies a whole draft"),
    _no("stream:*", "stream:*", "a policy has one [stream]: every tensor lives in one tier"),
    # Aspects with targets.
    *(
        _yes(
            f"{aspect}:*",
            "device:*",
            "every operator has a reference that runs on every device; lowering refuses where "
            "a faster kernel is registered and cannot serve the call",
        )
        for aspect in ("quantize", "store", "kv", "tokens", "draft")
    ),
    _yes("stream:*", "device:*", "the device has memory of its own, the host holds the rest"),
    _yes("stream:disk", "device:cpu", "weights stay in the mapped file until they are read"),
    _no(
        "stream:*",
        "device:cpu",
        "on a CPU the device's memory is the host's: nothing would be saved by moving between them",
    ),
    _no("device:*", "device:*", "a program is lowered for one target"),
)
