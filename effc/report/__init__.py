"""What a compilation says of itself: `report.json` and the page made of it, `report.html`."""

from effc.report.build import build_report
from effc.report.html import render_html

__all__ = ["build_report", "render_html"]
