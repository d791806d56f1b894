"""How many bytes of weights one step of decoding has to read."""

from __future__ import annotations

from effc.ir.pattern import op_name
from effc.ir.program import Program

_LOOKUPS = ("aten.embedding.default", "effc.quantized_embedding.default")
_CHOSEN = ("effc.grouped_linear.default", "effc.quantized_grouped_linear.default")


def weight_bytes_per_step(program: Program) -> int | None:
    """Bytes of all weights that a call reads in full, whatever its tokens are.

    Of a table that is only looked up a few rows are read, which is nothing. Which experts are read
    depends on the tokens: None for a program with experts.
    """
    read: set[str] = set()
    for _, node in program.nodes():
        if op_name(node) in _CHOSEN:
            return None
        if op_name(node) not in _LOOKUPS:
            read |= {str(arg.target) for arg in node.all_input_nodes if arg.op == "get_attr"}
    return sum(program.weights[name].nbytes for name in read)
