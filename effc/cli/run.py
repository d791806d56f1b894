"""`effc run`: generate with an artifact."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.cli.stream import TextStream
from effc.diagnostics import EffcError

if TYPE_CHECKING:
    from effc.api import CompiledModel

Prompt = Annotated[str | None, typer.Option("--prompt", help="The text to continue.")]
PromptFile = Annotated[
    Path | None, typer.Option("--prompt-file", help="A file with the text; - is standard input.")
]
PromptIds = Annotated[str | None, typer.Option("--prompt-ids", help="Token ids: 1,2,3.")]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--image", help="An image, or a .npy file of uint8 [H, W, 3], per <image>; may repeat."
    ),
]
Chat = Annotated[bool, typer.Option("--chat", help="Put the prompt into the chat template.")]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", help="The most tokens to add.")]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="Sample at it; 0 is greedy.")
]
TopK = Annotated[int | None, typer.Option("--top-k", help="Sample from the k likeliest.")]
TopP = Annotated[float | None, typer.Option("--top-p", help="Sample from this mass.")]
MinP = Annotated[
    float | None, typer.Option("--min-p", help="Least probability relative to the likeliest.")
]
Penalty = Annotated[
    float | None, typer.Option("--repetition-penalty", help="Make repeated tokens less likely.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", help="End when this text appears; may repeat.")
]


def run(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder that `effc compile` wrote.")
    ],
    prompt: Prompt = None,
    prompt_file: PromptFile = None,
    prompt_ids: PromptIds = None,
    image: Images = None,
    chat: Chat = False,
    max_new_tokens: NewTokens = 128,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    stop: Stop = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Continue a prompt."""
    text = _prompt_text(prompt, prompt_file, prompt_ids)
    given = _parse_ids(prompt_ids or "") if text is None else []
    from effc.api import load

    model = load(artifact)
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    options = _sampling(sampling) | {
        "max_new_tokens": max_new_tokens,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop_strings": stop or None,
    }
    ids = given if text is None else _encode(model, text, chat, artifact)
    if image:
        from effc.cli.images import with_images

        ids, options["pixel_values"] = with_images(model, ids, image, artifact)
    idle = seed is not None and not options["do_sample"]
    notes = ["--seed changes nothing here: the choice is greedy"] if idle else []
    _generate(model, ids, options, notes, as_json=json)


def _prompt_text(prompt: str | None, file: Path | None, ids: str | None) -> str | None:
    flags = {"--prompt": prompt, "--prompt-file": file, "--prompt-ids": ids}
    given = [flag for flag, value in flags.items() if value is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} exclude one another" if given else "there is no prompt"
        raise EffcError("E0101", found, help=f"give exactly one of {', '.join(flags)}")
    if file is None:
        return prompt
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return content.decode("utf-8")
    except OSError as error:
        reason = f"the prompt cannot be read: {error.strerror}"
        raise EffcError("E0101", reason, where=str(file), help="name an existing file") from error
    except UnicodeDecodeError as error:
        reason = f"the prompt is not UTF-8 text (byte {error.start})"
        raise EffcError("E0101", reason, where=str(file), help="save it as UTF-8") from error


def _parse_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise EffcError(
            "E0101",
            f"{text!r} is no list of token ids",
            where="--prompt-ids",
            help="write whole numbers with commas: 1,2,3",
        ) from error


def _sampling(choices: dict[str, Any]) -> dict[str, Any]:
    """Sampling arguments: any of them asks for sampling, temperature 0 for greedy choice."""
    given = {name: value for name, value in choices.items() if value is not None}
    if not given or given.get("temperature") == 0:
        return {"do_sample": False}
    return {"do_sample": True} | given


def _encode(model: CompiledModel, text: str, chat: bool, artifact: Path) -> list[int]:
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise EffcError(
            "E0101",
            "the artifact has no tokenizer, so a text cannot be its prompt",
            where=str(artifact),
            help="give token ids: --prompt-ids 1,2,3",
        )
    if chat:
        from effc.cli.chat import apply_chat_template

        text = apply_chat_template(model.program.info, text, str(artifact))
    return list(tokenizer.encode(text, add_special_tokens=not chat).ids)


def _generate(
    model: CompiledModel,
    ids: list[int],
    options: dict[str, Any],
    notes: list[str],
    *,
    as_json: bool,
) -> None:
    import torch

    live = sys.stdout.isatty() and not as_json
    stream = TextStream(model.tokenizer) if live else None
    result = model.generate_result(
        torch.tensor([ids], dtype=torch.int64), streamer=stream, **options
    )
    tokens = list(result.tokens[0])
    text = None if model.tokenizer is None else model.tokenizer.decode(tokens)
    if as_json:
        print_json(
            {
                "tokens": tokens,
                "text": text,
                "finish_reason": result.finish_reasons[0],
                "timings": result.timings,
                "counters": result.counters,
                "notes": [*notes, *result.notes],
            }
        )
        return
    if not live:
        print(",".join(map(str, tokens)) if text is None else text)
    for note in (*notes, *result.notes):
        print(f"note: {note}", file=sys.stderr)
    if result.finish_reasons[0] == "interrupted":
        raise KeyboardInterrupt
