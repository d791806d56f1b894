"""The operators that a stage may use.

A stage is a list of calls to operators named here: functional aten operators (no files, no
mutation, no random numbers except in `RANDOM`), the registered `effc::` operators, and arithmetic
on sizes. The list serves the verifier, and it is the wall between an artifact from a stranger and
this process: what is not named here cannot be looked up.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

from effc.diagnostics import ArtifactError

_ELEMENTWISE = """
abs.default acos.default acosh.default asin.default asinh.default atan.default atan2.default
atanh.default ceil.default clamp.default clamp.Tensor clamp_max.default clamp_min.default
clip.default cos.default cosh.default erf.default erfc.default erfinv.default exp.default
exp2.default expm1.default floor.default frac.default log.default log10.default log1p.default
log2.default nan_to_num.default neg.default reciprocal.default round.default round.decimals
rsqrt.default sign.default sgn.default sin.default sinh.default sqrt.default square.default
tan.default tanh.default trunc.default isfinite.default isinf.default isnan.default
add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Scalar rsub.Tensor mul.Tensor mul.Scalar
div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode floor_divide.default floor_divide.Scalar
true_divide.Tensor remainder.Scalar remainder.Tensor remainder.Scalar_Tensor fmod.Scalar
fmod.Tensor pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar addcmul.default addcdiv.default
lerp.Scalar lerp.Tensor maximum.default minimum.default fmax.default fmin.default
logaddexp.default xlogy.Tensor copysign.Tensor hypot.default
eq.Scalar eq.Tensor ne.Scalar ne.Tensor lt.Scalar lt.Tensor le.Scalar le.Tensor
gt.Scalar gt.Tensor ge.Scalar ge.Tensor isclose.default
logical_and.default logical_or.default logical_not.default logical_xor.default
bitwise_and.Scalar bitwise_and.Tensor bitwise_or.Scalar bitwise_or.Tensor bitwise_xor.Scalar
bitwise_xor.Tensor bitwise_not.default bitwise_left_shift.Tensor
bitwise_left_shift.Tensor_Scalar bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar
__and__.Scalar __and__.Tensor __or__.Scalar __or__.Tensor __xor__.Scalar __xor__.Tensor
__lshift__.Scalar __lshift__.Tensor __rshift__.Scalar __rshift__.Tensor
where.self where.Scalar where.ScalarOther where.ScalarSelf
fill.Scalar fill.Tensor masked_fill.Scalar masked_fill.Tensor
"""

_ACTIVATIONS = """
celu.default elu.default gelu.default glu.default hardsigmoid.default hardswish.default
hardtanh.default leaky_relu.default log_sigmoid.default mish.default prelu.default relu.default
relu6.default selu.default sigmoid.default silu.default softplus.default softshrink.default
threshold.default softmax.int _softmax.default log_softmax.int _log_softmax.default
"""

_LINEAR_ALGEBRA = """
linear.default matmul.default mm.default bmm.default mv.default dot.default addmm.default
addbmm.default baddbmm.default einsum.default outer.default tensordot.default bilinear.default
linalg_vector_norm.default norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype cdist.default
cosine_similarity.default cross.default _grouped_mm.default embedding.default
scaled_dot_product_attention.default linalg_det.default linalg_inv.default
"""

_NORMALIZATION = """
layer_norm.default native_layer_norm.default group_norm.default native_group_norm.default
rms_norm.default batch_norm.default _native_batch_norm_legit_no_training.default
instance_norm.default dropout.default feature_dropout.default
"""

_CONVOLUTION_AND_POOLING = """
conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding
conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input convolution.default
avg_pool1d.default avg_pool2d.default avg_pool3d.default max_pool1d.default max_pool2d.default
max_pool3d.default max_pool2d_with_indices.default max_pool3d_with_indices.default
adaptive_avg_pool1d.default adaptive_avg_pool2d.default _adaptive_avg_pool2d.default
adaptive_avg_pool3d.default adaptive_max_pool1d.default adaptive_max_pool2d.default
im2col.default col2im.default pad.default constant_pad_nd.default
reflection_pad1d.default reflection_pad2d.default
replication_pad1d.default replication_pad2d.default
upsample_linear1d.default upsample_linear1d.vec upsample_nearest1d.default upsample_nearest1d.vec
upsample_nearest2d.default upsample_nearest2d.vec upsample_nearest3d.default
upsample_nearest3d.vec upsample_bilinear2d.default upsample_bilinear2d.vec
upsample_bicubic2d.default upsample_bicubic2d.vec upsample_trilinear3d.default
upsample_trilinear3d.vec _upsample_nearest_exact2d.default _upsample_nearest_exact2d.vec
_upsample_bilinear2d_aa.default _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.default
_upsample_bicubic2d_aa.vec grid_sampler.default grid_sampler_2d.default
affine_grid_generator.default pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default
"""

_RECURRENT_AND_FOURIER = """
lstm.input gru.input rnn_tanh.input rnn_relu.input
fft_fft.default fft_ifft.default fft_rfft.default fft_irfft.default
"""

_SHAPES = """
alias.default as_strided.default broadcast_to.default broadcast_tensors.default chunk.default
clone.default contiguous.default detach.default diagonal.default diag_embed.default
expand.default expand_as.default flatten.using_ints flip.default meshgrid.default
meshgrid.indexing movedim.int movedim.intlist narrow.default permute.default
repeat.default repeat_interleave.self_int repeat_interleave.self_Tensor repeat_interleave.Tensor
reshape.default reshape_as.default resolve_conj.default resolve_neg.default roll.default
rot90.default select.int slice.Tensor split.Tensor split.sizes split_with_sizes.default
squeeze.default squeeze.dim squeeze.dims swapaxes.default t.default tensor_split.sections
tensor_split.indices tile.default transpose.int unbind.int unflatten.int unfold.default
unsqueeze.default unsafe_chunk.default unsafe_split.Tensor view.default view.dtype view_as.default
_unsafe_view.default _reshape_alias.default numpy_T.default
cat.default concat.default concatenate.default stack.default hstack.default vstack.default
column_stack.default atleast_1d.default atleast_2d.default atleast_3d.default
to.dtype to.dtype_layout to.device to.other _to_copy.default type_as.default
lift_fresh_copy.default select_scatter.default slice_scatter.default diagonal_scatter.default
view_as_complex.default view_as_real.default complex.default polar.default real.default
imag.default conj.default _conj.default
"""

_INDEXING = """
index.Tensor index_add.default index_copy.default index_fill.int_Scalar
index_fill.int_Tensor index_put.default index_select.default
gather.default scatter.src scatter.value scatter.reduce scatter.value_reduce scatter_add.default
scatter_reduce.two masked_scatter.default masked_select.default take.default
take_along_dim.default nonzero.default nonzero_numpy.default argwhere.default one_hot.default
bincount.default histc.default bucketize.Tensor bucketize.Scalar searchsorted.Tensor
searchsorted.Scalar isin.Tensor_Tensor isin.Tensor_Scalar unique_consecutive.default
_unique2.default unique_dim.default
"""

_CREATION = """
arange.default arange.start arange.start_step linspace.default scalar_tensor.default
full.default full_like.default ones.default ones_like.default zeros.default zeros_like.default
empty.memory_format empty_like.default new_empty.default new_full.default new_ones.default
new_zeros.default eye.default eye.m tril_indices.default triu_indices.default
"""

_REDUCTIONS = """
sum.default sum.dim_IntList mean.default mean.dim prod.default prod.dim_int var.default var.dim
var.correction var_mean.correction std.default std.dim std.correction logsumexp.default
all.default all.dim all.dims any.default any.dim any.dims amax.default amin.default
aminmax.default max.default max.dim max.other min.default min.dim min.other argmax.default
argmin.default median.default median.dim count_nonzero.default count_nonzero.dim_IntList
cumsum.default cumprod.default cummax.default cummin.default logcumsumexp.default diff.default
topk.default sort.default sort.stable argsort.default argsort.stable kthvalue.default
triu.default tril.default trace.default
"""

_SIZES = """
sym_size.int sym_numel.default sym_stride.int sym_storage_offset.default item.default
_shape_as_tensor.default
"""

# Operators that draw random numbers when an argument asks them to; inference never does.
RANDOM = frozenset(
    {
        "aten.dropout.default",
        "aten.feature_dropout.default",
        "aten.gru.input",
        "aten.lstm.input",
        "aten.rnn_relu.input",
        "aten.rnn_tanh.input",
        "aten.scaled_dot_product_attention.default",
    }
)

# The one operator that writes to an argument; bufferization alone introduces it.
MUTATING = frozenset({"effc.cache_write_.default"})

ATEN: frozenset[str] = frozenset(
    f"aten.{name}"
    for group in (
        _ELEMENTWISE,
        _ACTIVATIONS,
        _LINEAR_ALGEBRA,
        _NORMALIZATION,
        _CONVOLUTION_AND_POOLING,
        _RECURRENT_AND_FOURIER,
        _SHAPES,
        _INDEXING,
        _CREATION,
        _REDUCTIONS,
        _SIZES,
    )
    for name in group.split()
)

BUILTINS: dict[str, Callable[..., Any]] = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in (
        (operator, "add sub mul floordiv truediv mod pow neg getitem"),
        (operator, "eq ne lt le gt ge and_ or_ not_ is_not length_hint"),
        (math, "ceil floor trunc"),
        (torch, "sym_max sym_min sym_sum sym_int sym_float sym_ite sym_not"),
    )
    for name in names.split()
}

# Operators that run other stages; their arguments are checked one by one (`effc.ir.serialize`).
HIGHER_ORDER: dict[str, Callable[..., Any]] = {
    "higher_order.cond": torch.ops.higher_order.cond,
    "higher_order.while_loop": torch.ops.higher_order.while_loop,
}

_BUILTIN_NAMES = {function: name for name, function in (BUILTINS | HIGHER_ORDER).items()}
_EFFC_NAME = re.compile(r"effc\.([a-z][a-z0-9_]*)\.default")


def lookup(name: str, where: str | None = None) -> Callable[..., Any]:
    """The callable behind an operator's name.

    Args:
        name: e.g. "aten.linear.default", "effc.attend.default", "operator.add".
        where: the place that names it, for the message.

    Raises:
        ArtifactError: E0604 when the name is not on the list, or not known to this torch.
    """
    if name in BUILTINS or name in HIGHER_ORDER:
        return BUILTINS.get(name) or HIGHER_ORDER[name]
    if name not in ATEN and not _EFFC_NAME.fullmatch(name):
        raise ArtifactError(
            "E0604",
            f"operator {name[:80]!r} is not allowed in a program",
            where=where,
            help="compile the model again; load no artifacts from people you do not trust",
        )
    found = _overload(name)
    if found is None or (found._schema.is_mutable and name not in MUTATING):
        reason = f"is not known here (torch {torch.__version__})" if found is None else "mutates"
        raise ArtifactError(
            "E0604",
            f"operator {name!r} {reason}",
            where=where,
            help="install the versions that effc.json names, or compile the model again",
        )
    return found


def name_of(target: object) -> str | None:
    """The name under which `lookup` finds a target, None when it is not allowed."""
    if isinstance(target, torch._ops.OpOverload):
        name = str(target)
        listed = name in ATEN or _EFFC_NAME.fullmatch(name) is not None
        lawful = not target._schema.is_mutable or name in MUTATING
        return name if listed and lawful else None
    try:
        return _BUILTIN_NAMES.get(target)  # type: ignore[arg-type]
    except TypeError:
        return None


def is_allowed(target: object) -> bool:
    """Whether a stage may call `target`."""
    return name_of(target) is not None


def _overload(name: str) -> torch._ops.OpOverload | None:
    namespace, packet_name, overload_name = name.split(".")
    packet = getattr(getattr(torch.ops, namespace), packet_name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return None
    return getattr(packet, overload_name, None)
