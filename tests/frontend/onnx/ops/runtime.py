"""One operator in a model of its own: what effc makes of it, and what ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from onnx import helper, numpy_helper

import effc.ops  # noqa: F401
from effc.frontend.onnx.importer import import_model
from effc.runtime.executable import Executable

Arrays = Mapping[str, np.ndarray | None]

OPSETS = {"": 21, "com.microsoft": 1}


def model_of(
    op_type: str,
    inputs: Arrays,
    outputs: Sequence[int] = (0,),
    *,
    open_sizes: Sequence[int] = (),
    constants: Sequence[str] = (),
    domain: str = "com.microsoft",
    opset: int = OPSETS[""],
    attributes: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    """A model of one node.

    Args:
        op_type: the operator.
        inputs: name -> sample, in the operator's order; None for an absent input.
        outputs: which outputs are wanted.
        open_sizes: sizes of the samples that are names in the model, equal ones one name.
        constants: inputs that become initializers.
        domain: of the operator.
        opset: version of the standard domain.
        attributes: of the node.
    """
    names = [name if value is not None else "" for name, value in inputs.items()]
    results = [f"out_{i}" if i in outputs else "" for i in range(max(outputs) + 1)]
    node = helper.make_node(op_type, names, results, domain=domain, **(attributes or {}))
    given = {name: value for name, value in inputs.items() if value is not None}
    graph = helper.make_graph(
        [node],
        "one_operator",
        [_declared(n, v, open_sizes) for n, v in given.items() if n not in constants],
        [helper.make_empty_tensor_value_info(name) for name in results if name],
        [numpy_helper.from_array(v, n) for n, v in given.items() if n in constants],
    )
    opsets = [helper.make_opsetid(d, v) for d, v in (OPSETS | {"": opset}).items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _declared(name: str, value: np.ndarray, open_sizes: Sequence[int]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    shape = [f"n{size}" if size in open_sizes else size for size in value.shape]
    return helper.make_tensor_value_info(name, kind, shape)


def ours(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """The outputs of the imported program."""
    program = import_model(onnx_ir.from_proto(model), "test")
    names = [spec.name for spec in program.stages["forward"].inputs]
    given = [torch.from_numpy(np.asarray(inputs[value.name])) for value in model.graph.input]
    run = Executable(program, device="cpu", kernels="reference")
    results = run("forward", dict(zip(names, given, strict=True)))
    return [result.numpy() for result in results.values()]


def theirs(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """The outputs of ONNX Runtime on a CPU.

    Without its optimizations: it replaces products with dequantized weights by `MatMulNBits`,
    which rounds the inputs to 8 bits.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {value.name: inputs[value.name] for value in session.get_inputs()})


def both(
    op_type: str, inputs: Arrays, outputs: Sequence[int] = (0,), **options: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of outputs, ours first; types and shapes have been compared."""
    model = model_of(op_type, inputs, outputs, **options)
    pairs = list(zip(ours(model, inputs), theirs(model, inputs), strict=True))
    for found, expected in pairs:
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    return pairs


def agree(
    op_type: str,
    inputs: Arrays,
    outputs: Sequence[int] = (0,),
    *,
    atol: float = 2e-6,
    **options: Any,
) -> None:
    """Fail unless both compute the same, up to a different order of float32 sums."""
    for found, expected in both(op_type, inputs, outputs, **options):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=atol)
