"""Signal processing: Fourier transforms and mel filters."""

from __future__ import annotations

import math
import operator

import onnx_ir
import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import torch_dtype
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Size, Unsupported, Value

aten = torch.ops.aten


def dft(
    g: Builder,
    x: Value,
    dft_length: Value = None,
    axis: Value | int | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Value:
    """Discrete Fourier transform of x [..., 1] or, complex, [..., 2] along an axis."""
    if axis is None:
        axis = 1 if g.opset < 20 else -2
    dim = g.arith(operator.mod, g.int(axis), g.rank(x))
    length = None if dft_length is None else g.int(dft_length)
    dtype = g.dtype(x)
    signal, real = _signal(g, x)
    if onesided and inverse:
        y = g.call(aten.fft_irfft.default, signal, length, dim)
        return g.call(aten.to.dtype, g.call(aten.unsqueeze.default, y, -1), dtype)
    if onesided and not real:
        raise Unsupported("one side of the spectrum of a complex signal")
    if onesided:
        target = aten.fft_rfft.default
    else:
        target = aten.fft_ifft.default if inverse else aten.fft_fft.default
    return _parts(g, g.call(target, signal, length, dim), dtype)


def _signal(g: Builder, x: Value) -> tuple[Value, bool]:
    """A signal without its last dimension, and whether it is real."""
    parts = g.size(x, -1)
    if parts not in (1, 2):
        raise Unsupported("whether the signal is complex is only known at run time")
    if g.dtype(x).itemsize < 4:
        x = g.call(aten.to.dtype, x, torch.float32)
    real = g.call(aten.select.int, x, -1, 0)
    if parts == 1:
        return real, True
    return g.call(aten.complex.default, real, g.call(aten.select.int, x, -1, 1)), False


def _parts(g: Builder, y: Value, dtype: torch.dtype) -> Value:
    """Complex numbers as pairs; transforms of real signals may come as conjugate views."""
    whole = g.call(aten.resolve_conj.default, y)
    return g.call(aten.to.dtype, g.call(aten.view_as_real.default, whole), dtype)


def stft(
    g: Builder,
    signal: Value,
    frame_step: Value,
    window: Value = None,
    frame_length: Value = None,
    *,
    onesided: int = 1,
) -> Value:
    """Fourier transforms of frames of a signal [B, L, 1 or 2]: [B, frames, bins, 2]."""
    dtype = g.dtype(signal)
    if frame_length is not None:
        length = g.int(frame_length)
    else:
        length = g.size(signal, 1) if window is None else g.size(window, 0)
    waves, real = _signal(g, signal)
    if onesided and not real:
        raise Unsupported("one side of the spectrum of a complex signal")
    frames = g.call(aten.unfold.default, waves, 1, length, g.int(frame_step))
    if window is not None:
        frames = g.call(aten.mul.Tensor, frames, window)
    target = aten.fft_rfft.default if onesided else aten.fft_fft.default
    return _parts(g, g.call(target, frames, None, -1), dtype)


def mel_weight_matrix(
    g: Builder,
    num_mel_bins: Value,
    dft_length: Value,
    sample_rate: Value,
    lower_edge_hertz: Value,
    upper_edge_hertz: Value,
    *,
    output_datatype: int = 1,
) -> Value:
    """Triangles over the bins of a spectrum, evenly spaced in mel: [bins, num_mel_bins].

    O'Shaughnessy, "Speech Communication", 1987: mel = 2595 * log10(1 + hertz / 700).
    """
    count, length = g.int(num_mel_bins), g.int(dft_length)
    edges = _edges(g, count, length, sample_rate, (lower_edge_hertz, upper_edge_hertz))
    first, center, end = (
        g.call(aten.slice.Tensor, edges, 0, i, g.arith(operator.add, count, i)) for i in range(3)
    )
    bins = g.arith(operator.add, g.arith(operator.floordiv, length, 2), 1)
    at = g.call(aten.unsqueeze.default, g.call(aten.arange.default, bins), 1)
    rising = _ratio(g, g.call(aten.sub.Tensor, at, first), g.call(aten.sub.Tensor, center, first))
    falling = _ratio(g, g.call(aten.sub.Tensor, end, at), g.call(aten.sub.Tensor, end, center))
    top = g.call(aten.eq.Tensor, at, center)
    steep = g.call(aten.logical_and.default, top, g.call(aten.eq.Tensor, first, center))
    rising = g.call(aten.masked_fill.Scalar, rising, steep, 1)
    rising = g.call(aten.masked_fill.Scalar, rising, g.call(aten.gt.Tensor, at, center), 0)
    falling = g.call(aten.masked_fill.Scalar, falling, g.call(aten.lt.Tensor, at, center), 0)
    rising = g.call(aten.clamp_min.default, rising, 0)
    falling = g.call(aten.clamp_min.default, falling, 0)
    matrix = g.call(aten.maximum.default, rising, falling)
    return g.call(aten.to.dtype, matrix, torch_dtype(onnx_ir.DataType(output_datatype)))


def _edges(
    g: Builder, count: Size, length: Size, sample_rate: Value, limits: tuple[Value, Value]
) -> Value:
    """The spectrum's bins where triangles begin, peak and end: [num_mel_bins + 2]."""
    total = g.arith(operator.add, count, 2)
    low, high = (
        g.call(
            aten.mul.Scalar,
            g.call(aten.log1p.default, g.call(aten.div.Scalar, _double(g, limit), 700)),
            2595 / math.log(10),
        )
        for limit in limits
    )
    step = g.call(aten.div.Scalar, g.call(aten.sub.Tensor, high, low), total)
    places = g.call(aten.arange.default, total, dtype=torch.float64)
    mels = g.call(aten.add.Tensor, g.call(aten.mul.Tensor, places, step), low)
    powers = g.call(aten.expm1.default, g.call(aten.mul.Scalar, mels, math.log(10) / 2595))
    scaled = g.call(aten.mul.Scalar, powers, 700)
    scaled = g.call(aten.mul.Scalar, scaled, g.arith(operator.add, length, 1))
    ratio = g.call(aten.div.Tensor, scaled, _double(g, sample_rate))
    return g.call(aten.to.dtype, g.call(aten.floor.default, ratio), torch.int64)


def _double(g: Builder, value: Value) -> Value:
    return g.call(aten.to.dtype, value, torch.float64)


def _ratio(g: Builder, part: Value, whole: Value) -> Value:
    """part / whole, 0 where the whole is nothing."""
    none = g.call(aten.eq.Scalar, whole, 0)
    safe = g.call(aten.masked_fill.Scalar, whole, none, 1)
    return g.call(aten.masked_fill.Scalar, g.call(aten.div.Tensor, part, safe), none, 0)


TABLE: dict[str, Translation] = {
    "DFT": dft,
    "MelWeightMatrix": mel_weight_matrix,
    "STFT": stft,
}
