"""The decode stage in the signature that ONNX decoders share.

Before:
    decode(ids, positions, new_len, logit_rows, tree_mask, lengths, table, slots, k0, v0, ...)
        k1 = effc.cache_write([k0], k, slots, "fp32")
        v1 = effc.cache_write([v0], v, slots, "fp32")
        o = effc.attend(q, k1, v1, "fp32", "fp32", table, None, i, lengths, tree_mask, ...)
        -> logits [B, R, V], lengths, k1, v1, ...
After:
    decode(input_ids [B, T], attention_mask [B, P + T], past_key_0 [B, H_kv, P, D], ...)
        o, k1, v1 = effc_onnx.attend_past(q, k, v, past_key_0, past_value_0, attention_mask, ...)
        -> logits [B, T, V], k1, v1, ...

A cache that is handed in and out whole needs no pages, slots or lengths: the mask says which
tokens are there. Rotations whose angles depend on positions alone read them from a table.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from effc.diagnostics import ExportError
from effc.export.dense import STAGE, check_dense
from effc.export.onnx import operators
from effc.export.onnx.angles import AngleTables
from effc.export.stage_module import stage_module
from effc.ir.pattern import op_name
from effc.ir.program import CacheSite, InputSpec, Program
from effc.kernels.paged.formats import PlainFormat, page_format

B, T, P, S = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"

ATTEND, WRITE = "effc.attend.default", "effc.cache_write.default"


@dataclass(frozen=True)
class Port:
    """One input or output of the ONNX model.

    Attributes:
        name: in the ONNX file.
        spec: its placeholder, type and sizes.
    """

    name: str
    spec: InputSpec


@dataclass
class Decoder:
    """A decode stage on its way out.

    Attributes:
        module: the graph over its weights.
        inputs: in the order of its placeholders.
        outputs: names of its results.
    """

    module: fx.GraphModule
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]


def decoder(program: Program) -> Decoder:
    """Rewrite a copy of the decode stage; its weights are loaded now.

    Raises:
        ExportError: E0801 when the cache cannot be one tensor per plane that grows by what is new.
    """
    check_dense(program)
    check_formats(program)
    return _Rewriting(program).run()


def check_formats(program: Program) -> None:
    """Refuse caches that store anything but the keys and values themselves.

    Raises:
        ExportError: E0801, naming the site.
    """
    for site in program.cache_sites:
        for form in (site.key_format, site.value_format):
            if not isinstance(page_format(form), PlainFormat):
                raise ExportError(
                    "E0801",
                    f"an ONNX decoder keeps keys and values as they are, this cache stores {form}",
                    where=site.name,
                    help="leave `store` out of the policy for the export, or use effc.load()",
                )


@dataclass
class _Rewriting:
    program: Program
    tables: list[tuple[str, torch.Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stage = self.program.stages[STAGE]
        self.token_input = self.stage.token_input or "ids"
        self.module = stage_module(self.program, self.stage)
        self.graph = self.module.graph
        self.old = {str(n.target): n for n in self.graph.nodes if n.op == "placeholder"}
        self.sites = {f"k{site.index}": site for site in self.program.cache_sites}

    def run(self) -> Decoder:
        ports = self.ports()
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            self.new = {p.spec.name: self.graph.placeholder(p.spec.name) for p in ports}
        mask, tokens = self.new["attention_mask"], self.new[ports[0].spec.name]
        before = self.old[self.token_input]
        self.angles = AngleTables(self.module, self.context, self.old["positions"], before)
        with self.graph.inserting_after(self.new[ports[-1].spec.name]):
            self.positions = self.graph.call_function(operators.positions, (mask, tokens))
        for node in list(self.graph.nodes):
            if op_name(node) == "effc.rope.default":
                self.rotate(node)
        before.replace_all_uses_with(tokens)
        self.old["positions"].replace_all_uses_with(self.positions)
        results = self.attend_all()
        self.finish(results)
        outputs = ("logits", *(f"present.{n}.{kind}" for n, kind in self.planes()))
        return Decoder(self.module, ports, outputs)

    @property
    def context(self) -> int:
        return self.program.info.context or 4096

    def planes(self) -> list[tuple[int, str]]:
        sites = self.program.cache_sites
        return [(site.index, kind) for site in sites for kind in ("key", "value")]

    def ports(self) -> tuple[Port, ...]:
        """The inputs, in the order of the ecosystem."""
        ports = [
            self.token_port(),
            Port("attention_mask", InputSpec("attention_mask", torch.int64, (B, S))),
        ]
        for n, kind in self.planes():
            site = self.program.cache_sites[n]
            form, width = (
                (site.key_format, site.key_width)
                if kind == "key"
                else (site.value_format, site.value_width)
            )
            dtype = page_format(form).planes[0].dtype
            spec = InputSpec(f"past_{kind}_{n}", dtype, (B, site.kv_heads, P, width), "state")
            ports.append(Port(f"past_key_values.{n}.{kind}", spec))
        return tuple(ports)

    def token_port(self) -> Port:
        """Token ids, or the embeddings of a decoder that reads those."""
        if self.token_input == "ids":
            return Port("input_ids", InputSpec("input_ids", torch.int64, (B, T)))
        spec = next(s for s in self.stage.inputs if s.name == self.token_input)
        return Port("inputs_embeds", InputSpec("inputs_embeds", spec.dtype, (B, T, spec.shape[2])))

    def rotate(self, node: fx.Node) -> None:
        """One rotation by tables, where there are some."""
        x, cos, sin, style = node.args
        assert isinstance(x, fx.Node) and isinstance(cos, fx.Node) and isinstance(sin, fx.Node)
        found = [self.angles.table(angles, str(style)) for angles in (cos, sin)]
        if any(table is None for table in found):
            return
        whole, target = _whole_head(node, x, 2 * found[0].shape[-1])  # type: ignore[union-attr]
        with self.graph.inserting_before(target):
            tables = [
                self.table(f"rotary_{kind}", values)  # type: ignore[arg-type]
                for kind, values in zip(("cos", "sin"), found, strict=True)
            ]
            args = (whole, *tables, self.positions, style == "interleaved")
            rotated = self.graph.call_function(operators.rotary, args)
        target.replace_all_uses_with(rotated)

    def table(self, kind: str, values: torch.Tensor) -> fx.Node:
        """A table as an attribute; equal ones are one."""
        for name, held in self.tables:
            if name.startswith(kind) and torch.equal(held, values):
                return self.graph.get_attr(name)
        name = f"{kind}_{sum(n.startswith(kind) for n, _ in self.tables)}"
        self.tables.append((name, values))
        self.module.register_parameter(name, nn.Parameter(values, requires_grad=False))
        return self.graph.get_attr(name)

    def attend_all(self) -> list[fx.Node]:
        """Replace every attention with its two writes; the planes afterwards."""
        results: dict[str, fx.Node] = {}
        for node in list(self.graph.nodes):
            if op_name(node) == "effc.select_rows.default":
                node.replace_all_uses_with(node.args[0])
            elif op_name(node) == ATTEND:
                results |= self.attend(node)
        return [results[f"{kind}{n}"] for n, kind in self.planes()]

    def attend(self, node: fx.Node) -> dict[str, fx.Node]:
        """One attention with the writes of its keys and values."""
        q, (key_plane,), (value_plane,) = node.args[:3]  # type: ignore[misc]
        (key, k), (_, v) = _written(key_plane), _written(value_plane)  # type: ignore[arg-type]
        site = self.sites[key]
        past = [self.new[f"past_{kind}_{site.index}"] for kind in ("key", "value")]
        window, chunk, scale, softcap, sinks = node.args[11:16]
        with self.graph.inserting_before(node):
            made = self.graph.call_function(
                operators.attend_past,
                (q, k, v, *past, self.new["attention_mask"], sinks, window, chunk, scale, softcap,
                 site.name),
            )  # fmt: skip
            out, *planes = (self.graph.call_function(operator.getitem, (made, i)) for i in range(3))
        node.replace_all_uses_with(out)
        return dict(zip((f"key{site.index}", f"value{site.index}"), planes, strict=True))

    def finish(self, planes: list[fx.Node]) -> None:
        """Drop what the cache of the engine needed."""
        output = self.graph.output_node()
        logits = output.args[0][0]  # type: ignore[index]
        output.args = ((logits, *planes),)
        self.graph.eliminate_dead_code()
        for name, placeholder in self.old.items():
            if placeholder.users:
                user = next(iter(placeholder.users))
                raise ExportError(
                    "E0801",
                    f"an ONNX decoder has no input for {name!r}, which {op_name(user)} reads",
                    where=self.program.info.source,
                    help="use the artifact itself with effc.load(), or --to pt2",
                )
            self.graph.erase_node(placeholder)
        self.graph.lint()
        self.module.recompile()


def _written(plane: fx.Node) -> tuple[str, fx.Node]:
    """The input and the values of the write behind a plane that attention reads."""
    write = plane.args[0]
    assert isinstance(write, fx.Node) and op_name(write) == WRITE, "a plane is written, then read"
    (held,), values = write.args[:2]  # type: ignore[misc]
    return str(held.target), values  # type: ignore[union-attr,return-value]


def _whole_head(rope: fx.Node, x: fx.Node, rotated: int) -> tuple[fx.Node, fx.Node]:
    """What is rotated, and the node that it takes the place of.

    Before:
        y = aten.cat([effc.rope(x[..., :d], ...), x[..., d:]], -1)
    Here the whole x is rotated in its first d coordinates, and takes the place of y.
    """
    users = list(rope.users)
    if len(users) != 1 or op_name(users[0]) != "aten.cat.default":
        return x, rope
    cat = users[0]
    parts, dim = cat.args[0], cat.args[1] if len(cat.args) > 1 else 0
    if dim not in (-1, 3) or not isinstance(parts, (list, tuple)):
        return x, rope
    if len(parts) != 2 or parts[0] is not rope:
        return x, rope
    head, tail = _slice(x), _slice(parts[1])  # type: ignore[arg-type]
    whole = head[0] if head is not None and head[1:] == (0, rotated) else x
    if tail is None or tail[0] is not whole or tail[1] != rotated or tail[2] < 2**31:
        return x, rope
    return whole, cat


def _slice(node: fx.Node) -> tuple[fx.Node, int, int] | None:
    """Source, start and end of a slice of the last of four dimensions."""
    if op_name(node) != "aten.slice.Tensor" or len(node.args) != 4 or node.args[1] not in (-1, 3):
        return None
    return node.args[0], node.args[2] or 0, node.args[3]  # type: ignore[return-value]


def obstacle_to_grouped(program: Program) -> str | None:
    """Why `GroupQueryAttention` cannot serve a program, None if it can."""
    for site in program.cache_sites:
        if reason := _unfit(site):
            return f"{site.name}: {reason}"
    for node in program.stages[STAGE].graph.nodes:
        if op_name(node) == ATTEND and node.args[12] is not None:
            return f"attention in chunks of {node.args[12]}"
    return None


def _unfit(site: CacheSite) -> str | None:
    if site.key_width != site.value_width:
        return f"keys of {site.key_width} and values of {site.value_width} elements"
    if site.key_width % 8:
        return f"heads of {site.key_width} elements, no multiple of 8"
    return None
