"""What there is: passes that always run, and methods that a policy can name.

Tables of locations; nothing is imported until it is asked for. Other packages add methods through
the entry-point group `effc.methods`; a name that exists twice is an error naming both owners.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata

from effc.diagnostics import PassError
from effc.spec.schema import MethodInfo, method_info_from_dataclass

ENTRY_POINTS = "effc.methods"

# Table of the policy -> method -> "module:Class".
METHODS: dict[str, dict[str, str]] = {
    "quantize": {
        "rtn": "effc.passes.quantization.rtn:Rtn",
    },
    "kv": {},
    "store": {
        "int8": "effc.passes.kv_compression.int8:Int8",
    },
    "tokens": {},
    "draft": {},
    "stream": {},
}

# Exact passes that bring every captured program into canonical form, in any order: the pass
# manager sorts them by their own declarations.
CANONICAL: tuple[str, ...] = (
    "effc.passes.normalize.scalars:InlineScalars",
    "effc.passes.normalize.splits:SlicesOfSplits",
    "effc.passes.normalize.no_ops:RemoveNoOps",
    "effc.passes.normalize.layouts:JoinLayouts",
    "effc.passes.normalize.fold_constants:FoldConstants",
    "effc.passes.normalize.dead_code:RemoveDeadCode",
    "effc.passes.raising.quantized_linear:RaiseQuantizedLinear",
    "effc.passes.raising.linear:RaiseLinear",
    "effc.passes.raising.table:RaiseTable",
    "effc.passes.raising.bias:RaiseBias",
    "effc.passes.raising.merged_heads:RaiseMergedHeads",
    "effc.passes.raising.attention:RaiseAttention",
    "effc.passes.raising.attention_products:RaiseAttentionProducts",
    "effc.passes.raising.grouped_queries:RaiseGroupedQueries",
    "effc.passes.raising.masks:RecognizeMasks",
    "effc.passes.raising.positions:FindPositions",
    "effc.passes.raising.layers:NumberLayers",
    "effc.passes.raising.mean_squares:RaiseMeanSquares",
    "effc.passes.raising.rms_norm:RaiseNorms",
    "effc.passes.raising.layer_norm:RaiseLayerNorm",
    "effc.passes.raising.rope:RaiseRope",
    "effc.passes.raising.activations:RaiseActivations",
    "effc.passes.raising.gated_activation:RaiseGatedActivation",
)

TRANSFORMING: tuple[str, ...] = (
    "effc.passes.quantization.quantize_weights:QuantizeWeights",
    "effc.passes.caching.insert_cache:InsertCache",
)

LOWERING: tuple[str, ...] = (
    "effc.passes.lowering.bufferize:Bufferize",
    "effc.passes.lowering.select_kernels:SelectKernels",
)


def locate(location: str) -> type:
    """Import the class behind "module:Class"."""
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)


@cache
def method_locations() -> Mapping[str, Mapping[str, str]]:
    """All methods by table and name, those of other packages included, without importing them.

    An entry point is called "table.name", e.g. "quantize.mine".

    Raises:
        PassError: E0403 if two packages offer the same name.
    """
    tables = {table: dict(methods) for table, methods in METHODS.items()}
    owners = {f"{t}.{m}": "effc" for t, methods in METHODS.items() for m in methods}
    for point in metadata.entry_points(group=ENTRY_POINTS):
        owner = point.dist.name if point.dist else "an unknown package"
        if point.name in owners:
            raise PassError(
                "E0403",
                f"the method {point.name!r} is offered by both {owners[point.name]} and {owner}",
                help="uninstall one of the two packages",
            )
        table, _, name = point.name.partition(".")
        owners[point.name] = owner
        tables.setdefault(table, {})[name] = point.value
    return tables


class MethodInfos(Mapping[str, MethodInfo]):
    """Descriptions of the methods of one table; each is loaded when it is asked for.

    Args:
        table: the table's name.
        locations: method -> "module:Class".
    """

    def __init__(self, table: str, locations: Mapping[str, str]) -> None:
        self._table = table
        self._locations = locations
        self._known: dict[str, MethodInfo] = {}

    def __getitem__(self, name: str) -> MethodInfo:
        """The description of a method, read from its dataclass; loads no torch.

        Raises:
            PassError: E0413 if the module or class behind the method is not there.
        """
        location = self._locations[name]
        if name not in self._known:
            try:
                self._known[name] = method_info_from_dataclass(locate(location))
            except (ImportError, AttributeError, TypeError) as error:
                raise PassError(
                    "E0413",
                    f"the method {name!r} of [[{self._table}]] cannot be loaded from {location} "
                    f"({type(error).__name__}: {error})",
                    help="repair or uninstall the package that offers it",
                ) from error
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._locations

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


@cache
def method_infos() -> Mapping[str, Mapping[str, MethodInfo]]:
    """Descriptions of all methods, by table and name; nothing is imported before it is used."""
    return {table: MethodInfos(table, methods) for table, methods in method_locations().items()}


def method(table: str, name: str) -> type:
    """The class of a method."""
    return locate(method_locations()[table][name])
