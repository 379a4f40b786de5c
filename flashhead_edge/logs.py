"""Log lines of the package, as text or as a JSON object each, on standard error.

Modules log through :mod:`logging` under ``flashhead_edge`` and put numbers into ``extra={"fields": {...}}``. A program
that embeds the package sets up logging itself, or calls :func:`configure`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from flashhead_edge.errors import OptionError, did_you_mean

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_ROOT = "flashhead_edge"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """``warning: message``, then the fields as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        said = [f"{record.levelname.lower()}: {record.getMessage()}"]
        said += [f"{name}={value}" for name, value in _fields(record).items()]
        text = " ".join(said)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at that moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Standard error."""
        return sys.stderr


def configure(level: str = "warning", kind: str = "text") -> None:
    """Send the package's log lines to standard error; a second call takes the place of the first.

    Args:
        level: Least level of what is written.
        kind: "text" or "json".

    Raises:
        OptionError: Level or kind is unknown.
    """
    for name, value, known in (("level", level, LEVELS), ("format", kind, FORMATS)):
        if value not in known:
            raise OptionError(f"There is no log {name} {value!r}.", hint=did_you_mean(value, known))
    handler = _StandardError()
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logger = logging.getLogger(_ROOT)
    logger.handlers = [handler]
    logger.setLevel(level.upper())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})
