"""A measurement of the shape that `effc.evaluate` gives, with figures that differ everywhere."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

QUALITY: Json = {
    "text": {"label": "heldout.txt", "rows": 8, "tokens": 2048},
    "kl": {"mean": 0.01234567, "stderr": 0.00087654, "max": 0.9731},
    "perplexity": {
        "original": 3.41212,
        "rewritten": 3.45545,
        "ratio": 1.0127,
        "ratio_stderr": 0.00213,
    },
    "top1": {"mean": 0.94631, "stderr": 0.00521},
    "greedy": {"mean_length": 22.375, "new_tokens": 32, "identical": 3, "prompts": 8},
    "layers": [
        {"layer": 0, "relative_error": 0.0213},
        {"layer": 1, "relative_error": 0.0417},
        {"layer": 2, "relative_error": 0.0405},
        {"layer": 3, "relative_error": 0.0482},
    ],
    "notes": [],
    "time": {
        "prefill": {
            "original_s": 0.0812,
            "rewritten_s": 0.0903,
            "ratio": 1.1121,
            "spread": [1.081, 1.152],
            "rounds": 10,
        },
        "decode": {
            "original_s": 0.00312,
            "rewritten_s": 0.00281,
            "ratio": 0.9006,
            "spread": [0.8713, 0.9342],
            "rounds": 10,
        },
    },
    "bytes": {
        "original": {"weights": 16786560, "cache": 2097152},
        "rewritten": {"weights": 2361856, "cache": 2097153},
    },
    "counters": {
        "original": {"tokens_written": 504, "calls": {"decode": 459}},
        "rewritten": {"tokens_written": 503, "pages_taken": 16, "calls": {"decode": 396}},
    },
    "fired": [
        {"method": "quantize rtn", "evidence": "29 calls read packed planes", "ok": True},
        {"method": "store int8", "evidence": "no page was written", "ok": False},
    ],
    "gates": [
        {
            "name": "max_kl",
            "bound": 0.05,
            "value": 0.01234567,
            "held": True,
            "stderr": 0.00087654,
        },
        {
            "name": "max_time_ratio",
            "bound": 1.0,
            "value": 0.9006,
            "held": True,
            "spread": [0.8713, 0.9342],
        },
    ],
    "seconds": 12.25,
}

REVERTED: list[Json] = [
    {
        "rule": "[[quantize]] rule 2",
        "place": "policy.toml:16:1",
        "reason": "max_kl: 0.7103 ± 0.031, bound: at most 0.05, broken",
        "measured": {
            "before": [
                {"name": "max_kl", "bound": 0.05, "value": 0.7103, "held": False, "stderr": 0.031}
            ],
            "after": [
                {
                    "name": "max_kl",
                    "bound": 0.05,
                    "value": 0.01234567,
                    "held": True,
                    "stderr": 0.00087654,
                }
            ],
            "worst_step": None,
        },
    }
]
