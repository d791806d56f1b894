"""The few lines at the end of a compile: what was measured, and how good the prediction was."""

from __future__ import annotations

from effc.cli.summary import summary_lines

QUALITY = {
    "text": {"label": "sampled"},
    "kl": {"mean": 0.0537, "stderr": 0.0065, "max": 0.279},
    "perplexity": {"original": 22.57, "rewritten": 23.55, "ratio": 1.043, "ratio_stderr": 0.018},
    "top1": {"mean": 0.84375, "stderr": 0.019},
    "greedy": {"mean_length": 17.0, "new_tokens": 32, "identical": 2, "prompts": 4},
    "layers": [{"layer": 0, "relative_error": 0.1}],
    "bytes": {"original": {"weights": 8, "cache": 4}, "rewritten": {"weights": 4, "cache": 4}},
    "time": None,
    "fired": [{"method": "quantize rtn", "evidence": "29 of 29", "ok": True}],
    "gates": [
        {
            "name": "max_perplexity_ratio",
            "bound": 1.5,
            "value": 1.043,
            "held": True,
            "stderr": 0.018,
        }
    ],
    "notes": ["one prompt was short"],
}
REPORT = {
    "target": {"context": 512, "batch": 2},
    "quality": QUALITY,
    "reverted": [{"rule": "[[quantize]] rule 2 (rtn where linear)", "place": "p.toml:9:3"}],
    "prediction_error": [
        {"what": "weights_after", "predicted": 4 << 20, "measured": 4 << 20, "error": 0.0},
        {"what": "cache_at_context", "predicted": 2 << 20, "measured": 1 << 20, "error": 1.0},
        {"what": "decode_seconds", "predicted": 223e-6, "measured": 11.3e-3, "error": -0.9803},
        {"what": "call_seconds", "predicted": 1e-3, "measured": 0.0, "error": None},
    ],
}


def test_a_whole_summary() -> None:
    assert (
        "\n".join(summary_lines(REPORT))
        == """
quality
text                       sampled
KL divergence              0.0537 ± 0.0065 nats per token, largest 0.279
perplexity                 22.57 -> 23.55, ratio 1.043 ± 0.018
top-1 agreement            84.4 ± 1.9 % of the tokens
greedy answers             agree for 17.0 of 32 tokens on average, 2 of 4 to the end
reverted                   [[quantize]] rule 2 (rtn where linear), at p.toml:9:3
gate max_perplexity_ratio  1.043 ± 0.018, bound: at most 1.5, held
note: one prompt was short

size or time              predicted  measured    off by
weights                     4.0 MiB   4.0 MiB     0.0 %
cache at 2 x 512 tokens     2.0 MiB   1.0 MiB  +100.0 %
time of decode per token   ≥ 223 µs   11.3 ms   -98.0 %
time of call                 ≥ 1 ms      0 µs         -
"""
    )


def test_nothing_measured_says_nothing() -> None:
    assert summary_lines({"quality": None, "prediction_error": []}) == []
    assert summary_lines({}) == []
