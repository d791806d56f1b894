"""The survey's worked examples, and the properties that its formulas must have."""

from __future__ import annotations

import itertools

import pytest

from effc.cost.machine import DATA_SHEETS, machine_of
from effc.cost.survey import (
    Decoder,
    decode_seconds,
    encoder_flops,
    first_token_seconds,
    layer_macs,
    prefill_seconds,
    step_seconds,
    tensor_parallel,
    total_seconds,
)

A100 = DATA_SHEETS["A100-SXM4-80GB"]
QWEN_72B = Decoder(layers=80, width=8192, ffn_width=29568, kv_ratio=1 / 8)
LLAVA_7B = Decoder(layers=32, width=4096, ffn_width=11008)


def test_ridge_of_the_reference_machine() -> None:
    assert A100.ridge == pytest.approx(153.0, abs=0.05)
    assert machine_of("cuda:sm80") == A100


@pytest.mark.parametrize(("tokens", "gigabytes"), ((40_000, 13.11), (50_000, 16.38)))
def test_cache_of_long_prompts(tokens: int, gigabytes: float) -> None:
    assert QWEN_72B.kv_bytes(tokens) / 1e9 == pytest.approx(gigabytes, abs=0.005)


@pytest.mark.parametrize(
    ("tokens", "tera", "saved", "saved_with_text"),
    (
        (576, 3.817, 0.0, 0.0),
        (192, 1.253, 67.2, 61.0),
        (128, 0.833, 78.2, 71.0),
        (64, 0.416, 89.1, 80.9),
        (32, 0.208, 94.6, 85.8),
        (16, 0.104, 97.3, 88.3),
    ),
)
def test_multiply_adds_of_pruned_prompts(
    tokens: int, tera: float, saved: float, saved_with_text: float
) -> None:
    macs, text = LLAVA_7B.prefill_macs, 60
    assert macs(tokens) / 1e12 == pytest.approx(tera, abs=5e-4)
    assert 100 * (1 - macs(tokens) / macs(576)) == pytest.approx(saved, abs=0.05)
    with_text = 100 * (1 - macs(tokens + text) / macs(576 + text))
    assert with_text == pytest.approx(saved_with_text, abs=0.05)


def test_regimes_of_the_stages() -> None:
    """Decoding does about one FLOP per byte; a prefill of 512 tokens lies above the ridge."""
    decode = LLAVA_7B.decode_flops(512) / (LLAVA_7B.weight_bytes + LLAVA_7B.kv_bytes(512))
    assert decode == pytest.approx(1, rel=0.02)
    moved = LLAVA_7B.weight_bytes + LLAVA_7B.kv_bytes(512)
    assert LLAVA_7B.prefill_flops(512) / moved > A100.ridge
    assert LLAVA_7B.prefill_flops(100) / moved < A100.ridge


def test_a_layer_is_what_its_matrices_make_it() -> None:
    """Counted once more, matrix by matrix."""
    n, d, m = 7, 16, 40
    projections = 4 * n * d * d
    scores_and_values = n * n * d + n * n * d
    assert layer_macs(n, d, m) == projections + scores_and_values + n * (d * m + d * m + m * d)
    assert layer_macs(n, d, m, gated=False) == layer_macs(n, d, m) - n * d * m
    assert encoder_flops(n, d, m, layers=3) == 6 * layer_macs(n, d, m, gated=False)


def test_decoding_is_the_sum_of_its_steps() -> None:
    steps = [step_seconds(LLAVA_7B, 100 + i, A100) for i in (1, 2, 3)]
    assert decode_seconds(LLAVA_7B, 100, 3, A100) == pytest.approx(sum(steps))
    first = first_token_seconds(0.25, prefill_seconds(LLAVA_7B, 100, A100))
    assert total_seconds(first, sum(steps)) - sum(steps) == pytest.approx(first)


def test_a_step_grows_linearly_over_the_weights() -> None:
    """Time per token against the cache's length: a line whose intercept is the weight read."""
    times = [step_seconds(LLAVA_7B, n, A100) for n in (0, 1000, 2000)]
    assert times[0] == pytest.approx(LLAVA_7B.weight_bytes / A100.bandwidth)
    assert times[2] - times[1] == pytest.approx(times[1] - times[0])


def test_costs_grow_with_every_size() -> None:
    base = {"layers": 4, "width": 64, "ffn_width": 96, "kv_ratio": 0.5}
    for size in base:
        larger = Decoder(**{**base, size: 2 * base[size]})  # type: ignore[arg-type]
        assert step_seconds(larger, 50, A100) > step_seconds(Decoder(**base), 50, A100)  # type: ignore[arg-type]
    prefills = [Decoder(**base).prefill_flops(n) for n in (1, 2, 64, 65)]  # type: ignore[arg-type]
    assert all(a < b for a, b in itertools.pairwise(prefills))


@pytest.mark.parametrize("doubled", ("layers", "kv_ratio", "bytes_per_element"))
def test_cache_is_linear(doubled: str) -> None:
    sizes = {"layers": 4, "width": 64, "ffn_width": 96, "kv_ratio": 0.5, "bytes_per_element": 2.0}
    twice = {**sizes, doubled: 2 * sizes[doubled]}
    once = Decoder(**sizes).kv_bytes(10)  # type: ignore[arg-type]
    assert Decoder(**twice).kv_bytes(10) == 2 * once  # type: ignore[arg-type]
    assert Decoder(**sizes).kv_bytes(20) == 2 * once  # type: ignore[arg-type]


def test_several_devices_keep_what_binds() -> None:
    four = tensor_parallel(A100, 4)
    assert four.ridge == A100.ridge
    assert 4 * step_seconds(LLAVA_7B, 9, four) == pytest.approx(step_seconds(LLAVA_7B, 9, A100))
