"""The cache of an exported decoder: one tensor per plane, and a length per sequence.

A dense cache is a paged one whose pages hold a whole sequence each: the plane `[B, H_kv, S, D]`
is a pool of B pages of S slots, the table of sequence b names page b, and token j lies in slot
b * S + j. So the operators of the paged cache serve exported programs as they are.

The price is padding: every sequence takes S slots, however long it is, and layers with a window
keep what they do not look at any more.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from effc.diagnostics import ExportError
from effc.export.stage_module import stage_module, updated_planes
from effc.ir.program import InputSpec, Program
from effc.kernels.paged.formats import page_format

STAGE = "decode"
ARGUMENTS = ("ids", "embeds", "positions", "new_len", "logit_rows", "tree_mask")


class DenseDecoder(nn.Module):
    """The decode stage over a dense cache.

    Args:
        program: an autoregressive program; its weights are loaded now.

    Raises:
        ExportError: E0801 when the cache does more than keep its tokens.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        check_dense(program)
        stage = program.stages[STAGE]
        self.planes = updated_planes(stage)
        self.model = stage_module(program, stage)
        self._inputs = [spec.name for spec in stage.inputs]
        self._groups = program.groups

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        new_len: Tensor,
        logit_rows: Tensor,
        lengths: Tensor,
        past: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Feed up to T tokens to each sequence.

        Prefill, decoding and the verification of drafts are the same call: T tokens, one, a few.
        Rows may be ragged: sequence b takes the first `new_len[b]` of its T tokens.

        Args:
            input_ids: [B, T] int64.
            positions: [B, T] int64; for a text `lengths[b] + t`.
            new_len: [B] int64, how many of the T tokens count.
            logit_rows: [B, R] int64, after which of the T tokens logits are wanted; generating
                needs `new_len - 1` only.
            lengths: [B] int64, the tokens that each sequence holds already. To take tokens back,
                pass a smaller length: what lies beyond is not seen and will be overwritten.
            past: the planes by name, `[B, H_kv, S, ...]`; zeros at the start.

        Returns:
            Logits [B, R, V], the lengths [B] after this call, and the planes after it. A token
            that does not fit into S slots makes the call fail.
        """
        return self.feed({"ids": input_ids}, positions, new_len, logit_rows, lengths, past)

    def feed(
        self,
        tokens: Mapping[str, Tensor],
        positions: Tensor,
        new_len: Tensor,
        logit_rows: Tensor,
        lengths: Tensor,
        past: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """`forward` with the tokens as the input that the stage has for them."""
        B, S = positions.shape[0], past[self.planes[0]].shape[2]
        row = torch.arange(B, device=positions.device)
        slot = torch.arange(S, device=positions.device)
        token = torch.ops.effc.token_index(lengths, new_len, positions)
        # Past the end of a sequence's slots lie those of the next one: B * S is nobody's.
        taken = torch.where(token < S, row[:, None] * S + token, B * S)
        slots = torch.where(token < 0, -1, taken)[:, None]
        given: dict[str, Tensor | None] = {
            **tokens,
            "positions": positions,
            "new_len": new_len,
            "logit_rows": logit_rows,
            "tree_mask": None,
            "lengths": lengths,
            **past,
        }
        for group in self._groups:
            given[f"table_{group.name}"] = row.to(torch.int32)[:, None, None]
            given[f"slots_{group.name}"] = slots
            if group.indexed:
                given[f"index_{group.name}"] = slot.to(torch.int32).expand(B, S)
        logits, after, *planes = self.model(*(given[name] for name in self._inputs))
        return logits, after, dict(zip(self.planes, planes, strict=True))


class DenseEmbedsDecoder(DenseDecoder):
    """The decode stage of a vision-language model, which reads what its stage "embed" gives."""

    def forward(  # type: ignore[override]
        self,
        embeds: Tensor,
        positions: Tensor,
        new_len: Tensor,
        logit_rows: Tensor,
        lengths: Tensor,
        past: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As `DenseDecoder.forward`, with `embeds` [B, T, W] in the place of ids."""
        return self.feed({"embeds": embeds}, positions, new_len, logit_rows, lengths, past)


def dense_decoder(program: Program) -> DenseDecoder:
    """The module for a program's decode stage; its weights are loaded now.

    Raises:
        ExportError: E0801 when the cache does more than keep its tokens.
    """
    reads_ids = program.stages[STAGE].token_input == "ids"
    return (DenseDecoder if reads_ids else DenseEmbedsDecoder)(program)


def check_dense(program: Program) -> None:
    """Refuse a cache that a dense tensor with one length per sequence cannot express.

    Raises:
        ExportError: E0801, naming what stands against it.
    """
    reason = None
    for group in program.groups:
        if group.head_groups > 1:
            reason = f"the heads of group {group.name!r} keep different tokens"
    for entry in program.schedule:
        # Dropping what attention cannot see anyway changes nothing; anything else does.
        if (entry.action, entry.when) != ("evict_window", "each_step"):
            reason = f"it runs {entry.action!r} on its cache ({entry.when!r})"
    stage = program.stages[STAGE]
    foreign = [s.name for s in stage.inputs if s.role == "argument" and s.name not in ARGUMENTS]
    if foreign:
        reason = f"stage {STAGE!r} also takes {', '.join(foreign)}"
    if reason is not None:
        raise ExportError(
            "E0801",
            f"the model cannot be exported with a dense cache: {reason}",
            where=program.info.source,
            help="leave that rule out of the policy for the export, or use effc.load()",
        )


def plane_specs(program: Program) -> dict[str, InputSpec]:
    """The planes of a dense cache by name, `[B, H_kv, S, ...]`."""
    stage = program.stages[STAGE]
    specs = {spec.name: spec for spec in stage.inputs}
    planes: dict[str, InputSpec] = {}
    for name in updated_planes(stage):
        spec = specs[name]
        _, heads, _, *trailing = spec.shape
        planes[name] = InputSpec(name, spec.dtype, ("B", heads, "S", *trailing), "state")
    return planes


def empty_past(program: Program, batch: int, capacity: int) -> dict[str, Tensor]:
    """Planes of zeros.

    Args:
        program: an autoregressive program.
        batch: B.
        capacity: S, the most tokens a sequence may come to hold.
    """
    sizes: Mapping[int | str, int] = {"B": batch, "S": capacity}
    return {
        name: torch.zeros([int(sizes.get(s, s)) for s in spec.shape], dtype=spec.dtype)
        for name, spec in plane_specs(program).items()
    }


def bytes_per_slot(program: Program) -> int:
    """Bytes that one token of one sequence takes in all planes, held or padding."""
    return sum(
        site.kv_heads * page_format(form).bytes_per_token(width)
        for site in program.cache_sites
        for form, width in (
            (site.key_format, site.key_width),
            (site.value_format, site.value_width),
        )
    )
