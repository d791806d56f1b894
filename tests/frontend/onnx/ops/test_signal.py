"""Fourier transforms and mel filters, against numpy and the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontend.onnx.ops.texts import numbers, run, standard


def complex_of(x: np.ndarray) -> np.ndarray:
    """[..., 2] as complex numbers."""
    return x[..., 0] + 1j * x[..., 1]


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal up to float32 rounding of sums of about ten numbers."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("axis", [0, 1, -2])
@pytest.mark.parametrize("length", [None, 4, 9])
@pytest.mark.parametrize("parts", [1, 2])
def test_forward_and_back(opset: int, axis: int, length: int | None, parts: int) -> None:
    """A shorter length cuts the signal, a longer one adds zeros."""
    n = "" if length is None else f"n = Constant <value = int64 {{{length}}}> ()"
    use = ", n" if n else ""
    call = f"y = DFT <axis = {axis}> (x{use})"
    if opset == 20:
        call = f"a = Constant <value = int64 {{{axis}}}> () y = DFT (x{use or ', '}, a)"
    text = f"m (float[A,B,{parts}] x) => (float[P,Q,2] y) {{ {n} {call} }}"
    for shape in ((7, 5), (6, 1)):
        x = numbers(*shape, parts)
        signal = complex_of(x) if parts == 2 else x[..., 0]
        wanted = np.fft.fft(signal, length, axis % 3)
        (found,) = run(text, x, opset=opset)
        close(complex_of(found), wanted)
        inverse = text.replace("DFT", "DFT <inverse = 1>" if opset == 20 else "DFT")
        inverse = inverse.replace(f"<axis = {axis}>", f"<axis = {axis}, inverse = 1>")
        close(complex_of(run(inverse, x, opset=opset)[0]), np.fft.ifft(signal, length, axis % 3))


@pytest.mark.parametrize("length", [6, 7])
def test_one_side_is_enough_for_real_signals(length: int) -> None:
    text = "m (float[A,L,1] x) => (float[A,L,1] z) { n = Shape <start = 1, end = 2> (x)"
    text += " s = Squeeze (n) y = DFT <onesided = 1, axis = 1> (x)"
    text += " z = DFT <onesided = 1, inverse = 1, axis = 1> (y, s) }"
    x = numbers(2, length, 1)
    close(run(text, x, opset=17)[0], x)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("windowed", [False, True])
def test_frames(onesided: int, windowed: bool) -> None:
    use = "w" if windowed else ", n"
    text = "m (float[B,L,1] x, float[8] w) => (float[B,F,K,2] y) {"
    text += " s = Constant <value = int64 {3}> () n = Constant <value = int64 {8}> ()"
    text += f" y = STFT <onesided = {onesided}> (x, s, {use}) }}"
    window = np.hanning(8).astype(np.float32)
    for batch, length in ((1, 8), (2, 20)):
        x = numbers(batch, length, 1)
        frames = np.lib.stride_tricks.sliding_window_view(x[..., 0], 8, 1)[:, ::3]
        transform = np.fft.rfft if onesided else np.fft.fft
        wanted = transform(frames * window if windowed else frames)
        close(complex_of(run(text, x, window)[0]), wanted)


@pytest.mark.parametrize("edges", [(0.0, 4000.0), (125.0, 3800.0)])
@pytest.mark.parametrize(("count", "length"), [(8, 64), (5, 31), (40, 64)])
def test_mel_filters(edges: tuple[float, float], count: int, length: int) -> None:
    """Also with more bands than bins, where some have no width."""
    text = "m (int64 c, int64 n, int64 r, float a, float b) => (float[P,Q] y)"
    text += " { y = MelWeightMatrix (c, n, r, a, b) }"
    arrays = [np.array(v) for v in (count, length, 8000)]
    arrays += [np.array(v, np.float32) for v in edges]
    close(run(text, *arrays)[0], standard(text, *arrays)[0])
