"""`report.html`: one file that needs nothing else, made from `report.json`.

Models and policies are written by strangers, so every text is escaped, templates hold no `safe`,
and the page's own security policy allows exactly the style sheet and the script written here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from effc.report import charts, figures, sections, sizes
from effc.report.headline import headline
from effc.report.roofline import roofline

FOLDER = "templates"


def render_html(report: Mapping[str, Any]) -> str:
    """The page of a report.

    Args:
        report: what `build_report` gave, or the content of a report.json; parts may be missing.

    Returns:
        A whole HTML document without references to other files.
    """
    given, report = report, {key: part for key, part in report.items() if part is not None}
    sites = sizes.sized(report.get("sites") or ())
    held = sizes.held(sites)
    layers, outside = sizes.by_layer(held)
    quality = report.get("quality") or {}
    return render_page(
        "page.html",
        report=report,
        given=given,
        head=headline(report),
        sites=sites,
        outside=outside,
        kinds_chart=charts.sizes_by_kind(sizes.by_kind(held)),
        layers_chart=charts.sizes_by_layer(layers),
        errors_chart=charts.layer_errors(quality.get("layers") or ()),
        counters=sections.counters(quality),
        lost_layers=sections.lost_layers(quality.get("layers") or ()),
        roofline_chart=roofline(report.get("prediction")),
        cache=sections.cache_rows(report.get("cache") or ()),
        misses=sections.misses(report.get("near_misses") or ()),
        skipped=sections.skipped(report.get("skipped") or ()),
    )


def render_page(template: str, **values: Any) -> str:
    """A page in the house style.

    Args:
        template: its file in `FOLDER`.
        values: what it shows.
    """
    style, script = _text("style.css"), _text("script.js")
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
            **values,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("effc.report", FOLDER),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figures.FILTERS, settings=sections.settings)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment


@cache
def _text(name: str) -> str:
    return resources.files("effc.report").joinpath(FOLDER, name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The name under which a content security policy knows an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
