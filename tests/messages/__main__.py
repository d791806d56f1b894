"""`python -m tests.messages --write` writes docs/messages.md from the golden texts."""

from __future__ import annotations

import sys

from tests.messages.page import PAGE, page

if sys.argv[1:] != ["--write"]:
    sys.exit("usage: python -m tests.messages --write")
PAGE.write_text(page(), encoding="utf-8")
