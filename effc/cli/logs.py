"""Logging of a command: lines for people, or JSON lines for programs."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from effc.settings import Settings


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, and what was raised."""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def start_logging(chosen: Settings) -> None:
    """Send the log to stderr as the settings ask; a log that is set up already is left alone."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(levelname)s: %(message)s")
    handler.setFormatter(JsonLines() if chosen.log_format == "json" else text)
    logging.basicConfig(level=chosen.log.upper(), handlers=[handler])
