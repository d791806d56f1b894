"""`effc bench`: how fast an artifact is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.cli.quality import quality_lines, seconds_text
from effc.cost.text import bytes_text
from effc.diagnostics import GenerationError

if TYPE_CHECKING:
    from effc.evaluate.subject import Subject
    from effc.evaluate.timing import Run, Spread

PROMPT_TOKENS, NEW_TOKENS, ROUNDS = 128, 64, 10
SEED = 20

Against = Annotated[
    Path | None,
    typer.Option(
        "--against", metavar="MODEL", help="Take turns with a model folder or another artifact."
    ),
]
PromptTokens = Annotated[
    int | None, typer.Option("--prompt-tokens", help="Tokens of the prompt.", min=1)
]
NewTokens = Annotated[int | None, typer.Option("--new-tokens", help="Tokens to decode.", min=1)]
Rounds = Annotated[int, typer.Option("--rounds", help="How often to measure.", min=1)]


def bench(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder that `effc compile` wrote.")
    ],
    against: Against = None,
    prompt_tokens: PromptTokens = None,
    new_tokens: NewTokens = None,
    rounds: Rounds = ROUNDS,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure how fast an artifact is."""
    from effc.evaluate import timing
    from effc.evaluate.subject import Subject
    from effc.runtime.loader import load_program
    from effc.settings import settings

    kernels = settings().kernels
    subject = Subject(load_program(artifact), kernels=kernels)
    sizes = _sizes(subject, prompt_tokens, new_tokens)
    run = _run(subject, sizes)
    found: dict[str, Any] = {"artifact": str(artifact), "rounds": rounds, **sizes}
    found |= _speeds(timing.alone(run, rounds=rounds), sizes)
    found |= _circumstances(subject, sizes, found)
    if against is not None:
        from effc.cli.opened import open_other

        other = Subject(open_other(against, subject.program), kernels=kernels)
        found["against"] = str(against)
        found["time"] = timing.paired(_run(other, sizes), run, rounds=rounds)
        found["against_bytes"] = _bytes(other, sizes)
    if json:
        print_json(found)
    else:
        _print(found)


def _sizes(subject: Subject, prompt: int | None, new: int | None) -> dict[str, int]:
    """How many tokens to feed and decode; nothing for a model that is called."""
    if not subject.generates:
        return {}
    context = subject.program.info.context
    room = PROMPT_TOKENS + NEW_TOKENS if context is None else context
    prompt = prompt or min(PROMPT_TOKENS, max(1, room - (new or min(NEW_TOKENS, room // 2))))
    new = new or max(1, min(NEW_TOKENS, room - prompt))
    if context is not None and prompt + new > context:
        raise GenerationError(
            "E0701",
            f"{prompt} prompt tokens and {new} new ones exceed the context of {context} tokens",
            where="--prompt-tokens" if prompt >= context else "--new-tokens",
            help="lower --prompt-tokens or --new-tokens",
        )
    return {"prompt_tokens": prompt, "new_tokens": new}


def _run(subject: Subject, sizes: dict[str, int]) -> Run:
    from effc.evaluate import timing
    from effc.evaluate.outputs import STAGE, random_inputs

    if not subject.generates:
        return timing.call_run(subject, STAGE, random_inputs(subject.program))
    return timing.generation_run(subject, _prompt(subject, sizes), sizes["new_tokens"])


def _prompt(subject: Subject, sizes: dict[str, int]) -> list[int]:
    """Random token ids, the same on every call."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    vocabulary = subject.program.info.vocabulary or 1
    return torch.randint(vocabulary, (sizes["prompt_tokens"],), generator=generator).tolist()


def _speeds(times: dict[str, Spread], sizes: dict[str, int]) -> dict[str, Any]:
    """Work per second in each part: the median, and the quantiles 10 % and 90 %."""
    work = {"prefill": sizes.get("prompt_tokens", 1)}
    return {
        part: {
            "seconds": spread.median,
            "per_s": work.get(part, 1) / spread.median,
            "per_s_low": work.get(part, 1) / spread.high,
            "per_s_high": work.get(part, 1) / spread.low,
        }
        for part, spread in times.items()
    }


def _circumstances(
    subject: Subject, sizes: dict[str, int], found: dict[str, Any]
) -> dict[str, Any]:
    from effc.cli.progress import peak_memory

    facts: dict[str, Any] = {"bytes": _bytes(subject, sizes), "peak_memory": peak_memory()}
    on_cpu = subject.program.device == "cpu"
    facts["bound"] = _bound(facts["bytes"]["read_per_step"], found) if on_cpu else None
    return facts


def _bytes(subject: Subject, sizes: dict[str, int]) -> dict[str, int | None]:
    from effc.evaluate.traffic import weight_bytes_per_step
    from effc.ir.passbase import read_bytes

    cache = None
    if subject.generates:
        session = subject.session(1, sum(sizes.values()))
        prompt = _prompt(subject, sizes)
        session.advance([(prompt * (1 + sizes["new_tokens"]))[: sum(sizes.values())]])
        cache = session.store.bytes()["held"]
    return {
        "weights": read_bytes(subject.program),
        "read_per_step": weight_bytes_per_step(subject.program),
        "cache": cache,
    }


def _bound(read: int | None, found: dict[str, Any]) -> dict[str, Any] | None:
    """The decode speed at which the weights alone take all of the memory's bandwidth."""
    if read is None or "decode" not in found:
        return None
    from effc.cost.machine import measure_cpu

    machine = measure_cpu()
    most = machine.bandwidth / read
    share = found["decode"]["per_s"] / most
    return {
        "bandwidth": machine.bandwidth,
        "per_s": most,
        "share": share,
        "source": machine.source,
    }


def _print(found: dict[str, Any]) -> None:
    sizes = ", ".join(f"{found[k]} {k.replace('_', ' ')}" for k in _SIZES if k in found)
    print(f"{found['artifact']}: {sizes + ', ' if sizes else ''}{found['rounds']} rounds")
    for part, unit in _UNITS.items():
        if part in found:
            speed = found[part]
            print(
                f"{part:<18}{speed['per_s']:.1f} {unit}/s ({speed['per_s_low']:.1f} to "
                f"{speed['per_s_high']:.1f}), {seconds_text(speed['seconds'])}"
            )
    sizes_of = found["bytes"]
    print(f"{'weights':<18}{bytes_text(sizes_of['weights'])}")
    if sizes_of["cache"] is not None:
        print(f"{'cache':<18}{bytes_text(sizes_of['cache'])} at the end")
    print(f"{'peak memory':<18}{bytes_text(found['peak_memory'])} of this process")
    if bound := found["bound"]:
        bandwidth = f"{bound['bandwidth'] / 1e9:.1f} GB/s"
        print(
            f"{'bound':<18}{bound['per_s']:.1f} tokens/s, were reading the weights at {bandwidth} "
            f"all there is to do; {100 * bound['share']:.0f} % of that"
        )
    if "against" in found:
        _print_against(found)


def _print_against(found: dict[str, Any]) -> None:
    both = {"original": found["against_bytes"], "rewritten": found["bytes"]}
    print(f"\nagainst {found['against']}, taking turns")
    quality = {"layers": [], "bytes": both, "time": found["time"], "gates": []}
    print("\n".join(quality_lines(quality)))


_SIZES = ("prompt_tokens", "new_tokens")
_UNITS = {"prefill": "tokens", "decode": "tokens", "call": "calls"}
