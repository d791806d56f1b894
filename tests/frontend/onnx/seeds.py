"""Small sound models that the fuzzer starts from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.frontend.onnx.files import branches, calling, model, tiny


def shapes() -> onnx.ModelProto:
    """y = reshape(expand(x, [N, 6]), [2, -1]) + range: sizes that are computed and constants."""
    constants = {
        "zero": np.array(0), "one": np.array(1), "six": np.array([6]), "two": np.array([2]),
        "minus": np.array([-1]), "count": np.array([3]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "first"], ["n1"]),
        helper.make_node("Concat", ["n1", "six"], ["wide"], axis=0),
        helper.make_node("Expand", ["x", "wide"], ["e"]),
        helper.make_node("Concat", ["two", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["e", "target"], ["r"]),
        helper.make_node("ConstantOfShape", ["count"], ["c"],
                         value=numpy_helper.from_array(np.array([2], np.float32))),
        helper.make_node("ReduceSum", ["c"], ["total"], keepdims=0),
        helper.make_node("Range", ["zero", "n", "one"], ["steps"]),
        helper.make_node("Cast", ["steps"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["sum"], keepdims=0),
        helper.make_node("Add", ["r", "sum"], ["a"]),
        helper.make_node("Mul", ["a", "total"], ["y"]),
    ]  # fmt: skip
    initializers = [numpy_helper.from_array(v.astype(np.int64), n) for n, v in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([0]), "first"))
    return model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )


def enormous(operator: str) -> onnx.ModelProto:
    """A few bytes that ask for terabytes: one operator on constants that hold 2^40."""
    arguments: dict[str, tuple[list[str], dict[str, object]]] = {
        "ConstantOfShape": (["big"], {}),
        "Expand": (["one", "big"], {}),
        "Tile": (["one", "big"], {}),
        "Range": (["zero", "huge", "unit"], {}),
        "OneHot": (["big", "huge", "pair"], {"axis": -1}),
        "Pad": (["one", "sides"], {}),
        "Reshape": (["one", "big"], {}),
        "Resize": (["real", "", "scale"], {"mode": "nearest"}),
        "EyeLike": (["real"], {}),
        "SplitToSequence": (["one", "unit"], {}),
        "RandomNormal": ([], {"shape": [2**40]}),
        "HannWindow": (["huge"], {}),
        "BlackmanWindow": (["huge"], {}),
        "Unique": (["big"], {}),
        "Loop": (["huge", "", "one"], {"body": _doubling()}),
    }
    inputs, attributes = arguments[operator]
    constants = {
        "one": np.array([1]), "zero": np.array(0), "unit": np.array(1), "big": np.array([2**40]),
        "huge": np.array(2**40), "pair": np.array([0, 1]), "sides": np.array([2**40, 2**40]),
    }  # fmt: skip
    reals = {"real": np.ones((1, 1), np.float32), "scale": np.full(2, 1e6, np.float32)}
    node = helper.make_node(operator, inputs, ["y"], **attributes)
    return model(
        [node],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
        [numpy_helper.from_array(v, n) for n, v in (constants | reals).items()],
    )


ENORMOUS = (
    "ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "Pad", "Reshape", "Resize", "EyeLike",
    "SplitToSequence", "RandomNormal", "HannWindow", "BlackmanWindow", "Unique", "Loop",
)  # fmt: skip


def _doubling() -> onnx.GraphProto:
    """The body of a loop whose value doubles in length with every step."""
    value = [helper.make_tensor_value_info(n, TensorProto.INT64, None) for n in ("v", "w")]
    return helper.make_graph(
        [
            helper.make_node("Concat", ["v", "v"], ["w"], axis=0),
            helper.make_node("Identity", ["c"], ["d"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            value[0],
        ],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), value[1]],
    )


def image() -> onnx.ModelProto:
    """Convolution, batch norm, pooling, slicing and a linear layer."""
    rng = np.random.default_rng(0)
    weights = {
        "k": (4, 3, 3, 3), "scale": (4,), "shift": (4,), "mean": (4,), "var": (4,), "w": (4, 2),
    }  # fmt: skip
    numbers = {"start": [0], "end": [2], "axis": [1]}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                         strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["g"], alpha=0.5),
        helper.make_node("Slice", ["g", "start", "end", "axis"], ["h"]),
        helper.make_node("Softmax", ["h"], ["y"], axis=-1),
    ]  # fmt: skip
    return model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(rng.random(s, np.float32), n) for n, s in weights.items()]
        + [numpy_helper.from_array(np.array(v), n) for n, v in numbers.items()],
    )


def decoder() -> onnx.ModelProto:
    """Token ids to logits through one attention with a cache, as exporters write it."""
    rng = np.random.default_rng(0)
    weights = {"embed": (16, 8), "wq": (8, 8), "wk": (8, 8), "wv": (8, 8), "head": (8, 16)}
    nodes = [helper.make_node("Gather", ["embed", "input_ids"], ["h"])]
    nodes += [helper.make_node("MatMul", ["h", f"w{part}"], [part]) for part in "qkv"]
    nodes += [
        helper.make_node(
            "GroupQueryAttention",
            ["q", "k", "v", "past_key_values.0.key", "past_key_values.0.value", "last", "total"],
            ["o", "present.0.key", "present.0.value"],
            domain="com.microsoft",
            num_heads=2,
            kv_num_heads=2,
        ),
        helper.make_node("MatMul", ["o", "head"], ["logits"]),
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["count"], keepdims=0),
        helper.make_node("Sub", ["count", "one"], ["index"]),
        helper.make_node("Cast", ["index"], ["last"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["t"]),
        helper.make_node("Cast", ["t"], ["total"], to=TensorProto.INT32),
    ]
    cache = [
        helper.make_tensor_value_info(f"{when}.0.{part}", TensorProto.FLOAT, ["B", 2, length, 4])
        for when, length in (("past_key_values", "P"), ("present", "S"))
        for part in ("key", "value")
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", size])
        for name, size in (("input_ids", "T"), ("attention_mask", "S"))
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "T", 16])
    result = model(
        nodes,
        [*ids, *cache[:2]],
        [logits, *cache[2:]],
        [numpy_helper.from_array(rng.random(s, np.float32) - 0.5, n) for n, s in weights.items()]
        + [numpy_helper.from_array(np.array([1]), "one")],
        opset=21,
    )
    result.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return result


SEEDS: tuple[Callable[[], onnx.ModelProto], ...] = (
    tiny,
    branches,
    shapes,
    image,
    decoder,
    lambda: calling(("f", ["g", "Relu"]), ("g", ["Neg"])),
)
