"""The program: named stages over one state.

A stage is a `torch.fx.Graph` in our dialect: functional aten operators with composites kept
(linear, norms, silu/gelu, embedding) and the `effc::` operators. Weights are `get_attr` nodes
whose target is a name in `Program.weights`; there is no owning module, so no stage holds a copy.

Tensor letters, here and everywhere: B batch, T query length, S key length, H query heads,
H_kv key/value heads, G = H / H_kv, D head width, W hidden width, L layers, V vocabulary,
R requested logit rows, P tokens per page.

A vision-language model is three stages, M visual tokens per image:

    encode(pixel_values [N, 3, height, width]) -> features [N, M, W]
    embed(ids [B, T], features [F, W]) -> embeds [B, T, W]
    forward(embeds [B, T, W], positions [B, T]) -> logits [B, T, V]

Metadata of a node:
    val     the fake tensor or symbolic integer it produces
    path    the module it came from, e.g. "model.layers.3.mlp.up_proj"
    layer   the index of its decoder or encoder layer, None outside of them
    made_by the pass that created it, absent when captured
    kernel  the implementation chosen by lowering, absent before
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import fx

from effc.ir.weights import Weights

ENCODE, EMBED = "encode", "embed"
"""The stages of a vision-language model in front of its decoder."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a stage.

    Attributes:
        name: the placeholder's name.
        dtype: element type.
        shape: integers, or names of symbolic sizes such as "B".
        role: "argument" for what a caller passes, "state" for what the engine keeps.
        optional: may be None at run time.
        kind: "tensor"; "sequence" for a list of tensors of this element type; "size" for a number.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    role: str = "argument"
    optional: bool = False
    kind: str = "tensor"


@dataclass(frozen=True)
class StageRef:
    """Another stage, as an argument of a higher-order operator.

    The stage becomes a function of its inputs, bound to the program's weights.

    Attributes:
        name: of the stage; no stage leads back to itself.
        predicate: the function returns the one result itself, not a tuple: a loop's condition.
    """

    name: str
    predicate: bool = False


@dataclass
class Stage:
    """One graph with named inputs and outputs.

    Attributes:
        name: "forward", "decode", ...
        graph: placeholders in the order of `inputs`; the output node holds one flat tuple.
        inputs: what the placeholders are.
        outputs: names of the results, in order.
    """

    name: str
    graph: fx.Graph
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]

    def placeholder(self, name: str) -> fx.Node:
        """The placeholder node called `name`."""
        for node in self.graph.nodes:
            if node.op == "placeholder" and node.target == name:
                return node
        raise KeyError(f"stage {self.name!r} has no input {name!r}")

    @property
    def output_node(self) -> fx.Node:
        """The single output node."""
        return next(iter(reversed(self.graph.nodes)))

    @property
    def token_input(self) -> str | None:
        """What a decoder reads: "ids" [B, T] or "embeds" [B, T, W], beside "positions" [B, T];
        None for any other stage."""
        names = {spec.name for spec in self.inputs}
        found = (name for name in ("ids", "embeds") if {name, "positions"} <= names)
        return next(found, None)

    def results(self) -> dict[str, fx.Node | None]:
        """Output name -> the node that produces it."""
        values = self.output_node.args[0]
        return dict(zip(self.outputs, values, strict=True))  # type: ignore[arg-type]

    def weight_names(self) -> list[str]:
        """Names of the weights the graph reads, in order of first use."""
        names = (str(n.target) for n in self.graph.nodes if n.op == "get_attr")
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class CacheSite:
    """One place where keys and values are kept between calls.

    Attributes:
        index: position in `Program.cache_sites`; names its state inputs `k{index}`, `v{index}`.
        name: module path of the attention that owns it.
        layer: its layer.
        kv_heads: H_kv.
        key_width, value_width: D of a key and of a value.
        key_format, value_format: page formats, see `effc.kernels.paged.formats`.
        group: the retention group: sites of one group keep the same tokens in the same slots and
            share one table.
    """

    index: int
    name: str
    layer: int | None
    kv_heads: int
    key_width: int
    value_width: int
    key_format: str
    value_format: str
    group: str


@dataclass(frozen=True)
class RetentionGroup:
    """Sites that keep the same tokens.

    Attributes:
        name: e.g. "full" or "window64"; names the state inputs `table_{name}`, `slots_{name}` and,
            when `indexed`, `index_{name}`.
        head_groups: 1 while all heads keep the same tokens, H_kv when each keeps its own.
        window: tokens older than this are dropped exactly; None keeps everything.
        indexed: slots store their token index because tokens are evicted.
    """

    name: str
    head_groups: int = 1
    window: int | None = None
    indexed: bool = False


@dataclass(frozen=True)
class ScheduleEntry:
    """When the engine does periodic work on the cache.

    Attributes:
        when: "after_prefill", "every", "over_budget" or "each_step".
        action: the stage to run, or "evict_window" which the store does by itself.
        arguments: literal arguments, e.g. {"group": "window64"}.
    """

    when: str
    action: str
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelInfo:
    """What the outside world says about a model.

    Attributes:
        family: the model type, e.g. "llama".
        source: where it came from, for reports.
        context: longest sequence in tokens, None if the model is no language model.
        vocabulary: number of token ids, None if unknown.
        dtype: element type of the checkpoint.
        eos, bos, pad: special token ids.
        image_token: the id whose places in a prompt the features of images take; None for a model
            of text alone.
        image_tokens: M, how many of them one image takes.
        files: tokenizer and configuration files to carry along, by name.
    """

    family: str
    source: str
    context: int | None = None
    vocabulary: int | None = None
    dtype: torch.dtype = torch.float32
    eos: tuple[int, ...] = ()
    bos: int | None = None
    pad: int | None = None
    image_token: int | None = None
    image_tokens: int | None = None
    files: dict[str, Path] = field(default_factory=dict)


@dataclass
class Program:
    """Stages over one state, with what the engine must know to run them.

    Attributes:
        stages: by name. A causal language model has "forward" (cacheless) until the cache is
            inserted, then "decode"; one that sees has "encode" and "embed" before it (below).
            Branches and loop bodies are stages that others refer to.
        weights: the one state.
        info: facts about the model.
        page_size: P.
        device: where it was lowered to, "cpu" or "cuda".
        threads: how many threads its operators may use on a CPU, None leaves that to torch.
        loop: "none" (call it) or "autoregressive" (generate with it).
        notes: remarks for the user that belong in the report.
    """

    stages: dict[str, Stage]
    weights: Weights
    info: ModelInfo
    cache_sites: tuple[CacheSite, ...] = ()
    groups: tuple[RetentionGroup, ...] = ()
    schedule: tuple[ScheduleEntry, ...] = ()
    page_size: int = 32
    loop: str = "none"
    device: str = "cpu"
    threads: int | None = None
    notes: list[str] = field(default_factory=list)

    def nodes(self) -> Iterator[tuple[Stage, fx.Node]]:
        """Every node with its stage."""
        for stage in self.stages.values():
            for node in stage.graph.nodes:
                yield stage, node

    def read_weights(self) -> set[str]:
        """Names of the weights that any stage reads."""
        return {name for stage in self.stages.values() for name in stage.weight_names()}

    def group(self, name: str) -> RetentionGroup:
        """The retention group called `name`."""
        return next(group for group in self.groups if group.name == name)

    def copy(self) -> Program:
        """An independent program: graphs are copied, weights are shared."""
        stages = {name: _copy_stage(stage) for name, stage in self.stages.items()}
        return replace(self, stages=stages, weights=self.weights.copy(), notes=list(self.notes))


def _copy_stage(stage: Stage) -> Stage:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    results = graph.graph_copy(stage.graph, copies)
    graph.output(results)
    graph.output_node().meta = dict(stage.output_node.meta)
    return replace(stage, graph=graph)
