"""What a policy can name in a model."""

from __future__ import annotations

from typing import Any

from effc.canonical import canonical_program
from effc.ir.passbase import read_bytes
from effc.ir.sites import find_sites
from effc.passes import registry
from effc.spec.parse import load_policy


def inspect_model(source: Any, spec: Any = None) -> dict[str, Any]:
    """Sites, sizes and masks of a model as JSON-ready data; weights are not read."""
    policy = load_policy(spec, registry.method_infos())
    program, _, _ = canonical_program(source, policy)
    return {
        "family": program.info.family,
        "source": program.info.source,
        "dtype": str(program.info.dtype).removeprefix("torch."),
        "context": program.info.context,
        "vocabulary": program.info.vocabulary,
        "parameters": sum(program.weights[n].numel for n in program.read_weights()),
        "bytes": read_bytes(program),
        "sites": [
            {
                "kind": site.kind,
                "name": site.name,
                "layer": site.layer,
                "shape": list(site.shape),
                "params": site.params,
                "heads": site.heads,
                "kv_heads": site.kv_heads,
                "width": site.width,
                "mask": site.mask,
                "weight": site.weight,
            }
            for site in find_sites(program)
        ],
    }
