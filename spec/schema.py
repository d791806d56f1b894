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
    method_info_from_dataclass,
)
from effc.spec.places import Place
from effc.spec.quantity import Quantity
from effc.spec.selector import Selector

__all__ = [
    "DTYPES",
    "REQUIRED",
    "VERSION",
    "KvRule",
    "MethodInfo",
    "MethodTable",
    "OptionError",
    "OptionInfo",
    "Policy",
    "QualitySpec",
    "QuantizeRule",
    "Rule",
    "TargetSpec",
    "TokensRule",
    "method_info_from_dataclass",
]

VERSION = 1
"""The version of the policy language that this effc reads."""

DTYPES = ("float32", "float16", "bfloat16")

MethodTable = Mapping[str, Mapping[str, MethodInfo]]
"""Registered methods: table of the policy ("quantize", ...) -> name -> description."""


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
    """

    device: str = "cpu"
    memory: Quantity | None = None
    context: int | None = None
    batch: int = 1
    dtype: str | None = None
    threads: int | None = None
    allow_reference: bool = False


@dataclass(frozen=True)
class QualitySpec:
    """`[quality]`: gates against the original model, measured after rewriting.

    Attributes:
        data: a text file; None samples text from the original model.
        tokens: how many tokens are measured.
        max_kl: upper bound of the mean KL divergence, in nats per token.
        max_perplexity_ratio: upper bound of perplexity over the original's.
    """

    data: str | None = None
    tokens: int = 2048
    max_kl: float | None = None
    max_perplexity_ratio: float | None = None


@dataclass(frozen=True)
class Rule:
    """One entry of `[[quantize]]`, `[[kv]]` or `[[tokens]]`: a method for the sites selected.

    Attributes:
        where: the sites.
        method: the name of a registered method.
        options: the options that the policy sets, checked against the method's description.
        optional: whether matching no site is fine.
        index: position among the rules of the same table; a later rule wins.
        span: the place of the rule, for messages.
        where_span: the place of the selector, for messages.
    """

    table: ClassVar[str]

    where: Selector
    method: str
    options: dict[str, object] = field(default_factory=dict[str, object])
    optional: bool = False
    index: int = 0
    span: Place = field(default="policy", compare=False)
    where_span: Place = field(default="policy", compare=False)


@dataclass(frozen=True)
class QuantizeRule(Rule):
    """`[[quantize]]`: how weights are stored."""

    table: ClassVar[str] = "quantize"


@dataclass(frozen=True)
class KvRule(Rule):
    """`[[kv]]`: which cache entries stay and how they are stored."""

    table: ClassVar[str] = "kv"


@dataclass(frozen=True)
class TokensRule(Rule):
    """`[[tokens]]`: which input tokens stay."""

    table: ClassVar[str] = "tokens"


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
        source: the file it came from; None for a policy built in Python.
        text: TOML that parses to this policy, as given where it was given as text.
    """

    version: int = VERSION
    target: TargetSpec = field(default_factory=TargetSpec)
    quality: QualitySpec | None = None
    quantize: tuple[QuantizeRule, ...] = ()
    kv: tuple[KvRule, ...] = ()
    tokens: tuple[TokensRule, ...] = ()
    draft: None = None  # tables of the language that nothing can be built from yet
    stream: None = None
    source: str | None = field(default=None, compare=False)
    text: str = field(default="", compare=False)
