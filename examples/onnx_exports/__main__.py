"""ONNX files as other tools make them, and what effc makes of the files.

    python -m examples.onnx_exports make --exporter NAME [--families A B ...] [--python PATH] -o DIR
    python -m examples.onnx_exports coverage DIR [--only EXPORTER[/FAMILY] ...] [--write FILE]

`make` writes DIR/EXPORTER/FAMILY/model.onnx. Exporters that need packages of their own run in the
environment of `--python`:

    optimum              torch, transformers<4.58, optimum-onnx==0.1.0, onnxruntime
    genai-fp32, -int4    torch, transformers, onnxruntime-genai==0.18.0, onnx-ir, onnxruntime

`coverage` compares every file with onnxruntime, keeps what it finds in DIR/coverage.json, groups
failures in DIR/failures.md, and puts its tables between the markers of `--write`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from examples.onnx_exports.exporters import EXPORTERS, KINDS
from examples.onnx_exports.models import BY_NAME, MODELS, published

ROOT = Path(__file__).resolve().parents[2]


def make(exporter: str, families: list[str], python: str, out: Path) -> int:
    """Run one exporter in its environment; returns the exit status of that."""
    names = families or [model.name for model in MODELS if model.kind in KINDS[exporter]]
    arguments = []
    for name in names:
        package = BY_NAME[name].package
        arguments.append(f"{name}={published(package)}" if package else name)
    command = [python, "-m", "examples.onnx_exports.worker", exporter, str(out / exporter)]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return subprocess.run([*command, *arguments], cwd=ROOT, env=os.environ | quiet).returncode


def coverage(corpus: Path, only: list[str], document: Path | None) -> int:
    """Measure the files asked for and write the tables; 1 if something is not as it should be."""
    from examples.onnx_exports.coverage import Row, expected_sites, from_json, measure, to_json
    from examples.onnx_exports.table import failures, replace_tables

    kept = corpus / "coverage.json"
    rows: dict[tuple[str, str], Row] = {}
    if kept.is_file():
        rows = {(r.exporter, r.family): r for r in from_json(kept.read_text(encoding="utf-8"))}
    expected = {row.family: row.expected for row in rows.values() if row.expected}
    for said in sorted(corpus.glob("*/*/made.json")):
        key = said.parts[-3], said.parts[-2]
        if only and not any("/".join(key).startswith(prefix) for prefix in only):
            continue
        if key[1] not in expected and BY_NAME[key[1]].kind == "decoder":
            expected[key[1]] = expected_sites(key[1])
        rows[key] = row = measure(said.parent, expected.get(key[1], {}))
        print(f"{'/'.join(key):32} {'good' if row.good else row.made or row.error}", flush=True)
        kept.write_text(to_json(list(rows.values())), encoding="utf-8")
        (corpus / "failures.md").write_text(failures(list(rows.values())), encoding="utf-8")
    if document:
        replace_tables(document, list(rows.values()))
    return int(any(not row.good and not row.made for row in rows.values()))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="export models")
    making.add_argument("--exporter", required=True, choices=EXPORTERS)
    making.add_argument("--families", nargs="*", default=[], choices=[*BY_NAME], metavar="FAMILY")
    making.add_argument("--python", default=sys.executable, help="of the exporter's environment")
    making.add_argument("-o", "--output", type=Path, required=True)
    covering = commands.add_parser("coverage", help="compare with onnxruntime")
    covering.add_argument("corpus", type=Path)
    covering.add_argument("--only", nargs="*", default=[], metavar="EXPORTER[/FAMILY]")
    covering.add_argument("--write", type=Path, help="a document with the markers")
    given = parser.parse_args()
    if given.command == "make":
        sys.exit(make(given.exporter, given.families, given.python, given.output))
    sys.exit(coverage(given.corpus, given.only, given.write))


if __name__ == "__main__":
    main()
