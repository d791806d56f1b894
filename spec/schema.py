"""The policy as data: what every other part of the compiler reads.

All classes are frozen. Where a thing stood in the policy's text never takes part in comparisons:
two policies are equal when they ask for the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from effc.spec.options import (
    REQUIRED,
    MethodInfo,
    OptionError,
    OptionInfo,
    amount,
    method_info_from_dataclass,
)
from effc.spec.places import Place
from effc.spec.quantity import Quantity
from effc.spec.selector import Selector

__all__ = [
    "BOUNDS",
    "DTYPES",
    "GATES",
    "REQUIRED",
    "STREAM_KV",
    "STREAM_WEIGHTS",
    "VERIFY",
    "VERSION",
    "Choice",
    "DraftSpec",
    "KvRule",
    "MethodInfo",
    "MethodTable",
    "OptionError",
    "OptionInfo",
    "Policy",
    "QualitySpec",
    "Quantity",
    "QuantizeRule",
    "Rule",
    "StreamSpec",
    "TargetSpec",
    "TokensRule",
    "amount",
    "method_info_from_dataclass",
]

VERSION = 1
"""The version of the policy language that this effc reads."""

DTYPES = ("float32", "float16", "bfloat16")

GATES = ("fail", "revert")
"""What happens to a rule that makes the model worse than `[quality]` allows."""

BOUNDS = ("max_kl", "max_perplexity_ratio", "min_top1", "max_time_ratio")
"""The gates of `[quality]`."""

VERIFY = ("exact", "loose")
"""How drafted tokens are accepted: the target's law exactly, or within a tolerance of it."""

STREAM_WEIGHTS = ("auto", "device", "host", "disk")
STREAM_KV = ("device", "host")

MethodTable = Mapping[str, Mapping[str, MethodInfo]]
"""Registered methods: aspect of a site ("quantize", "kv", "store", ...) -> name -> description."""


@dataclass(frozen=True)
class TargetSpec:
    """`[target]`: where the model will run, and within which limits.

    Attributes:
        device: "cpu", "cuda", or "cuda:sm90" for one GPU architecture.
        memory: device bytes for weights, cache and activations at `context`.
        context: tokens that the cache must hold; None leaves it to the model.
        batch: sequences at once.
        dtype: dtype of what is not compressed; None keeps the checkpoint's.
        threads: CPU threads; None lets the runtime choose.
        allow_reference: accept the reference where a registered faster kernel cannot run here.
        memory_span: the place of `memory`, for messages.
    """

    device: str = "cpu"
    memory: Quantity | None = None
    context: int | None = None
    batch: int = 1
    dtype: str | None = None
    threads: int | None = None
    allow_reference: bool = False
    memory_span: Place = field(default="target.memory", compare=False)


@dataclass(frozen=True)
class QualitySpec:
    """`[quality]`: gates against the original model, measured after rewriting.

    Attributes:
        data: a text file; None samples text from the original model.
        tokens: how many tokens are measured.
        max_kl: upper bound of the mean KL divergence, in nats per token.
        max_perplexity_ratio: upper bound of perplexity over the original's.
        min_top1: lower bound of the share of tokens, 0 to 1, on which both models agree what
            comes next.
        max_time_ratio: upper bound of the decode time per token over the original's on this
            machine, from paired timings; 1.0 is "never slower".
    """

    data: str | None = None
    tokens: int = 2048
    max_kl: float | None = None
    max_perplexity_ratio: float | None = None
    min_top1: float | None = None
    max_time_ratio: float | None = None

    def bounds(self) -> dict[str, float]:
        """The gates that are set, by name."""
        values = {name: getattr(self, name) for name in BOUNDS}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Choice:
    """A method with its options, for one aspect of a site.

    Attributes:
        method: the name of a registered method.
        options: the options that the policy sets, checked against the method's description.
    """

    method: str
    options: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True)
class Rule:
    """One entry of `[[quantize]]`, `[[kv]]` or `[[tokens]]`: a method for the sites selected.

    Attributes:
        where: the sites.
        method: the name of a registered method.
        options: the options that the policy sets, checked against the method's description.
        optional: whether matching no site is fine.
        gate: one of `GATES`: what happens if the rule breaks a bound of `[quality]`; None leaves
            it to the end, where a broken bound fails the compile.
        index: position among the rules of the same table; a later rule wins.
        span: the place of the rule, for messages.
        where_span: the place of the selector, for messages.
    """

    table: ClassVar[str]

    where: Selector
    method: str
    options: dict[str, object] = field(default_factory=dict[str, object])
    optional: bool = False
    gate: str | None = None
    index: int = 0
    span: Place = field(default="policy", compare=False)
    where_span: Place = field(default="policy", compare=False)

    def choices(self) -> dict[str, Choice]:
        """What the rule decides: aspect of a site -> method. An aspect is a table of methods."""
        return {self.table: Choice(self.method, self.options)}


@dataclass(frozen=True)
class QuantizeRule(Rule):
    """`[[quantize]]`: how weights are stored."""

    table: ClassVar[str] = "quantize"


@dataclass(frozen=True)
class KvRule(Rule):
    """`[[kv]]`: which cache entries stay, how they are stored, or both.

    Attributes:
        method: who stays; empty where the rule only says how entries are stored.
        store: how they are stored: a method of the table "store".
    """

    table: ClassVar[str] = "kv"

    store: Choice | None = None

    def choices(self) -> dict[str, Choice]:
        """Aspect "kv" where there is a method, aspect "store" where there is a store."""
        kept = super().choices() if self.method else {}
        return kept if self.store is None else kept | {"store": self.store}


@dataclass(frozen=True)
class TokensRule(Rule):
    """`[[tokens]]`: which input tokens stay."""

    table: ClassVar[str] = "tokens"


@dataclass(frozen=True)
class DraftSpec:
    """`[draft]`: speculative decoding.

    Attributes:
        drafters: what proposes tokens: a built-in drafter, or the folder of a model.
        select: the method of the table "draft" that chooses among them.
        verify: one of `VERIFY`.
        options: the options of `select`.
    """

    drafters: tuple[str, ...]
    select: str
    verify: str = "exact"
    options: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True)
class StreamSpec:
    """`[stream]`: where weights and cache live while the model runs.

    Attributes:
        weights: one of `STREAM_WEIGHTS`; "auto" streams what does not fit `target.memory`.
        kv: one of `STREAM_KV`.
    """

    weights: str = "auto"
    kv: str = "device"


@dataclass(frozen=True)
class Policy:
    """What to save, where, within which quality.

    Attributes:
        version: of the policy language.
        target: the machine.
        quality: the gates; None measures nothing.
        quantize: rules for weights, in the order of the text.
        kv: rules for the cache.
        tokens: rules for input tokens.
        draft: speculative decoding; None decodes token by token.
        stream: the tiers; None keeps everything on the device.
        source: the file it came from; None for a policy built in Python.
        text: TOML that parses to this policy, as given where it was given as text.
    """

    version: int = VERSION
    target: TargetSpec = field(default_factory=TargetSpec)
    quality: QualitySpec | None = None
    quantize: tuple[QuantizeRule, ...] = ()
    kv: tuple[KvRule, ...] = ()
    tokens: tuple[TokensRule, ...] = ()
    draft: DraftSpec | None = None
    stream: StreamSpec | None = None
    source: str | None = field(default=None, compare=False)
    text: str = field(default="", compare=False)
