"""The files that make a folder one that onnxruntime-genai generates from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from effc.export.onnx.lowering import Graph
from effc.export.single_file import new_file
from effc.ir.program import Program

CONFIG = "genai_config.json"


def write(g: Graph, program: Program, model: Path, *, force: bool) -> list[Path]:
    """Write genai_config.json and copy the files of the tokenizer beside a model.

    Returns:
        The files written.
    """
    written = [model.with_name(CONFIG)]
    with new_file(written[0]) as part:
        part.write_text(json.dumps(config(g, program, model.name), indent=4), encoding="utf-8")
    for name, source in program.info.files.items():
        target = model.with_name(name)
        if source.resolve() != target.resolve():
            with new_file(target) as part:
                shutil.copyfile(source, part)
        written.append(target)
    return written


def config(g: Graph, program: Program, filename: str) -> dict[str, Any]:
    """The contents of genai_config.json."""
    info, site = program.info, program.cache_sites[0]
    context = info.context or 4096
    # A token that is never produced, for models that do not say how an answer ends.
    eos = list(info.eos) or [info.vocabulary or 0]
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": filename,
        "head_size": site.key_width,
        "hidden_size": g.heads * site.key_width,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": g.heads,
        "num_hidden_layers": len(program.cache_sites),
        "num_key_value_heads": site.kv_heads,
    }
    model: dict[str, Any] = {
        "context_length": context,
        "decoder": decoder,
        "eos_token_id": eos if len(eos) > 1 else eos[0],
        "pad_token_id": eos[0] if info.pad is None else info.pad,
        "type": "decoder",
        "vocab_size": info.vocabulary,
    }
    if info.bos is not None:
        model["bos_token_id"] = info.bos
    # Only GroupQueryAttention writes into a buffer that is longer than what it holds.
    search = {"do_sample": False, "max_length": context, "past_present_share_buffer": g.grouped}
    return {"model": model, "search": search}
