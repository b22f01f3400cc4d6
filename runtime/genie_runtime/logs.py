"""Structured logs: one JSON object a line on stderr, with secrets taken out.

Made of the standard library: structlog would import rich and pygments where they are installed,
some 70 ms in a daemon that has to answer soon after its start.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"token|secret|password|authorization|(^|_)key$", re.IGNORECASE)
_DIGEST_OR_SECRET = re.compile(
    r"(?P<digest>(?:sha256|blake3):[0-9a-f]{64})|\b[0-9a-f]{32,}\b|Bearer\s+\S+"
)


def redact(name: str, value: Any) -> Any:
    """A field's value fit for a log: nothing under a telling name, no long hex but digests."""
    if _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, str):
        return _DIGEST_OR_SECRET.sub(lambda found: found["digest"] or REDACTED, value)
    if isinstance(value, list | tuple):
        return [redact("", item) for item in value]
    return value


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One line: event, fields, then level, logger and time (ISO 8601, UTC)."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        line = {"event": redact("", record.getMessage())}
        line |= {name: redact(name, value) for name, value in fields.items()}
        line |= {
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        if record.exc_info:
            line["exception"] = redact("", self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True, default=str)


def configure(level: int = logging.INFO) -> None:
    """Send everything that is logged in the process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


class Logger:
    """A logger whose calls carry named fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: Any) -> None:
        """Log an event with its fields."""
        self._logger.info("%s", event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Log something that an operator should look at."""
        self._logger.warning("%s", event, extra={"fields": fields})


def logger(name: str) -> Logger:
    """A structured logger."""
    return Logger(name)
