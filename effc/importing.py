"""`effc.import_onnx`: an ONNX model as a program that can be called."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from effc.ir.program import Program
from effc.runtime.executable import Executable

if TYPE_CHECKING:
    from effc.frontend.onnx.boundary import Port


@dataclass
class ImportedProgram(Program):
    """A program that is called like the ONNX graph it was made from.

    Attributes:
        input_ports, output_ports: the graph's inputs and outputs, in order.
    """

    input_ports: tuple[Port, ...] = ()
    output_ports: tuple[Port, ...] = ()

    @cached_property
    def executable(self) -> Executable:
        """The stages with their weights in memory."""
        return Executable(self, device="cpu", kernels="reference")

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the graph.

        Args:
            inputs: in the order of the graph's inputs: torch tensors (or numpy arrays), numpy
                arrays for element types that torch lacks, lists for sequences, None for absent
                optionals.

        Returns:
            The graph's outputs, in order, of the same kinds.

        Raises:
            GenerationError: E0703 when an input is not as the graph declares it.
        """
        from effc.frontend.onnx.boundary import enter, leave

        names = (spec.name for spec in self.stages["forward"].inputs)
        values = dict(zip(names, enter(self.input_ports, inputs), strict=True))
        results = self.executable("forward", values).values()
        return tuple(map(leave, self.output_ports, results))


def import_onnx(source: Any) -> ImportedProgram:
    """Import an ONNX model.

    Args:
        source: path of a file, `onnx.ModelProto` or `onnx_ir.Model`.

    Raises:
        ModelError: E0301, E0310, E0311 the file cannot be read; E0302, E0306, E0307 what it says
            cannot be expressed.
    """
    import effc.ops  # noqa: F401
    from effc.frontend.onnx.beside import image_sizes
    from effc.frontend.onnx.boundary import port
    from effc.frontend.onnx.importer import import_model, open_inputs, source_text
    from effc.frontend.onnx.reader import read_model

    model = read_model(source)
    inputs = tuple(port(value) for value in open_inputs(model.graph))
    outputs = tuple(port(value) for value in model.graph.outputs)
    program = import_model(model, source_text(source), image_sizes(model.graph, source))
    known = {f.name: getattr(program, f.name) for f in fields(Program)}
    return ImportedProgram(**known, input_ports=inputs, output_ports=outputs)
