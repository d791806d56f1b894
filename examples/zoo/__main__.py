"""Train, evaluate and list the reference models: `python -m examples.zoo --help`.

Run it from the repository root. On Linux, training is about an eighth faster when freed memory
stays with the process: `MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Family:
    """A row of the table of families.

    Package `examples.zoo.<name>` holds module `train` with `train(out, settings)` and module
    `evaluate` with `evaluate(checkpoint, limit, write_card)`, imported only when asked for.
    Families that share a package name it; its `train` takes their `variant` as third argument.
    """

    name: str
    summary: str
    minutes: float
    package: str = ""
    variant: str = ""

    @property
    def checkpoint(self) -> Path:
        if self.package:
            return HERE / self.package / self.name
        return HERE / self.name / "checkpoint"

    def load(self, module: str) -> ModuleType:
        return importlib.import_module(f"examples.zoo.{self.package or self.name}.{module}")


FAMILIES = {
    family.name: family
    for family in (
        Family("lm", "Llama that writes Python, trained on the standard library", 65),
        Family("draft-code", "Drafter of lm for statements", 8, "drafters", "code"),
        Family("draft-prose", "Drafter of lm for docstrings, comments", 8, "drafters", "prose"),
        Family("draft-numbers", "Drafter of lm for tables of numbers", 8, "drafters", "numbers"),
        Family("recall", "Qwen3 that finds records in contexts of 4,096 tokens", 45),
        Family("reason", "Qwen3 that solves problems step by step and checks itself", 45),
        Family("vlm", "LLaVA that answers questions about rendered scenes", 50),
        Family("video", "LLaVA that reads clips of moving objects, one frame after another", 40),
    )
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 or, for wrong usage, 2."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.zoo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="list the families")
    command.set_defaults(run=_list)

    command = commands.add_parser("train", help="train a family from scratch, or go on")
    command.add_argument("family", choices=FAMILIES)
    command.add_argument("--minutes", type=_positive, help="training time; the run ends annealed")
    command.add_argument("--out", type=Path, help="checkpoint folder (default: the shipped one)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    command.add_argument("--work-dir", type=Path, help="folder of the resumable state")
    command.set_defaults(run=_train)

    command = commands.add_parser("evaluate", help="print a family's scores beside its baselines")
    command.add_argument("family", choices=FAMILIES)
    command.add_argument("checkpoint", type=Path, nargs="?", metavar="DIR")
    command.add_argument("--limit", type=int, help="evaluate on this many items only")
    command.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    command.add_argument("--card", action="store_true", help="also write DIR/README.md")
    command.set_defaults(run=_evaluate)
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _list(options: argparse.Namespace) -> int:
    for family in FAMILIES.values():
        state = "trained" if (family.checkpoint / "training.json").exists() else "not trained"
        print(f"{family.name:<14} {state:<12} {family.summary}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from examples.zoo.trainer import Settings

    _set_threads(options.threads)
    family = FAMILIES[options.family]
    settings = Settings(
        work_dir=options.work_dir or Path(tempfile.gettempdir()) / "effc-zoo" / family.name,
        minutes=options.minutes or family.minutes,
        seed=options.seed,
    )
    variant = (family.variant,) if family.variant else ()
    family.load("train").train(options.out or family.checkpoint, settings, *variant)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    _set_threads(options.threads)
    family = FAMILIES[options.family]
    checkpoint = options.checkpoint or family.checkpoint
    if not (checkpoint / "training.json").exists():
        print(f"{checkpoint} holds no checkpoint that `train` wrote", file=sys.stderr)
        return 2
    family.load("evaluate").evaluate(checkpoint, options.limit, options.card)
    return 0


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
