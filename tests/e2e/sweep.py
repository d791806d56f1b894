"""Every causal language model of transformers: identical, refused with a reason, never wrong.

    python -m tests.e2e.sweep [--only NAME ...] [--write docs/coverage.md]

Each class runs in a process of its own with a time limit. The exit code is 1 if a model came out
wrong or an error escaped that is no `EffcError`.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import platform
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tests.e2e.check import CRASHED, IDENTICAL, REFUSED, UNBUILT, VOID, WRONG, Verdict, check
from tests.e2e.variants import Variant, variants

RESULTS = (IDENTICAL, REFUSED, VOID, UNBUILT, WRONG, CRASHED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep, print one line per model, and write the table if asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.sweep", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="configuration names without Config")
    parser.add_argument("--write", type=Path, help="where the table goes")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds per model")
    options = parser.parse_args(arguments)
    _quiet()
    chosen = [v for v in variants() if not options.only or v.name in options.only]
    verdicts = []
    for variant in chosen:
        verdicts.append(isolated(variant, options.limit))
        print(" | ".join((variant.name, verdicts[-1].result, verdicts[-1].reason)), flush=True)
    print(_counts(verdicts))
    if options.write:
        options.write.write_text(table(verdicts), encoding="utf-8")
    return int(any(verdict.is_defect for verdict in verdicts))


def isolated(variant: Variant, limit: float) -> Verdict:
    """Check a variant in a process that may crash, hang or eat memory."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(variant, there))
    process.start()
    there.close()
    try:
        if here.poll(limit):
            return here.recv()
        return Verdict(variant.name, CRASHED, f"took more than {limit:.0f} s")
    except EOFError:
        process.join()
        return Verdict(variant.name, CRASHED, f"the process died with code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _work(variant: Variant, pipe: Connection) -> None:
    torch.set_num_threads(1)
    pipe.send(check(variant))


def _quiet() -> None:
    """Import what every child needs, and keep the libraries from talking."""
    import transformers

    import effc  # noqa: F401

    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _counts(verdicts: Iterable[Verdict]) -> str:
    counts = Counter(verdict.result for verdict in verdicts)
    return ", ".join(f"{counts[result]} {result}" for result in RESULTS if counts[result])


def table(verdicts: Sequence[Verdict]) -> str:
    """The coverage page."""
    import transformers

    lines = [
        "# Coverage of transformers' causal language models",
        "",
        "A tiny model of every class, with random weights, compiled with an empty policy and",
        "compared with transformers' eager implementation in fp32: greedy tokens over two prompts,",
        "logits within 1e-4 of the largest. *Void* means that transformers' own answer decides",
        "nothing; the reason says why.",
        "",
        f"**{_counts(verdicts)}.**",
        "",
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}. Made by",
        "`python -m tests.e2e.sweep --write docs/coverage.md`.",
        "",
        "| Configuration | Result | Reason |",
        "|---|---|---|",
    ]
    for verdict in verdicts:
        reason = verdict.reason.replace("|", "\\|")
        lines.append(f"| {verdict.name} | {verdict.result} | {reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
