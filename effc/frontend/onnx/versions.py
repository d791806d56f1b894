"""Versions: of the file format, and of the operators that a file uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import onnx

from effc.diagnostics import ModelError
from effc.frontend.onnx.damage import damaged, some, text
from effc.frontend.onnx.table import plain_domain
from effc.frontend.onnx.views import GraphView


def check_format(version: int, place: str) -> None:
    """Refuse a file format that does not exist, or not yet.

    Raises:
        ModelError: E0310 without a version, E0302 from the future.
    """
    if version < 1:
        raise damaged(place, "the file does not say which version of the format it has")
    if version > onnx.IR_VERSION:
        raise ModelError(
            "E0302",
            f"the file has version {version} of the ONNX format; the installed onnx "
            f"{onnx.__version__} knows versions up to {onnx.IR_VERSION}",
            where=place,
            help="update onnx, or export the model with an older one",
        )


def read_opsets(imports: Iterable[onnx.OperatorSetIdProto], place: str) -> dict[str, int]:
    """Domain -> version.

    Raises:
        ModelError: E0310, one domain has two versions.
    """
    found: dict[str, int] = {}
    for entry in imports:
        domain = plain_domain(text(entry.domain, "the name of a domain", place))
        if found.setdefault(domain, entry.version) != entry.version:
            versions = f"{found[domain]} and {entry.version}"
            raise damaged(place, f"the domain {shown(domain)} is imported twice: {versions}")
    return found


def check_opsets(
    opsets: Mapping[str, int],
    graph: GraphView,
    own: Iterable[tuple[str, str, str]],
    place: str,
) -> None:
    """Check that every operator of a graph has a version, one that the installed onnx knows.

    Args:
        opsets: domain -> version, as the graph's model or function imports them.
        graph: whose operators are looked at.
        own: (domain, name, overload) of the functions in the file; their domains need no version.
        place: for messages.

    Raises:
        ModelError: E0310 without a version, E0302 from the future.
    """
    known, own_domains = known_opsets(), {domain for domain, _, _ in own}
    for domain, version in opsets.items():
        if version < 1 and domain not in own_domains:
            message = f"the domain {shown(domain)} has the version {version}; versions start at 1"
            raise damaged(place, message)
        newest = known.get(domain)
        if newest is not None and version > newest:
            raise ModelError(
                "E0302",
                f"the file uses version {version} of the operators {shown(domain)}; the installed "
                f"onnx {onnx.__version__} knows versions up to {newest}",
                where=place,
                help=f"update onnx, or export the model with opset {newest}",
            )
    missing: dict[str, list[str]] = {}
    for node in graph.all_nodes():
        domain = node.function[0]
        if domain not in opsets and domain not in own_domains:
            missing.setdefault(domain, []).append(node.label)
    for domain, labels in missing.items():
        message = f"{graph.label} uses operators of the domain {shown(domain)}, of which the file "
        raise damaged(place, f"{message}names no version: {some(labels)}")


@cache
def known_opsets() -> dict[str, int]:
    """Domain -> newest version that the installed onnx has a definition of."""
    newest: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas():
        newest[schema.domain] = max(newest.get(schema.domain, 1), schema.since_version)
    return newest | {"": onnx.defs.onnx_opset_version()}


def shown(domain: str) -> str:
    """A domain for people."""
    return repr(domain or "ai.onnx")
