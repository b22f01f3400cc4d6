"""Structured logs: one JSON object a line on stderr, with secrets taken out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_KEY = re.compile(r"token|secret|password|authorization|(^|_)key$", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"\b[0-9a-f]{32,}\b|Bearer\s+\S+")
_HASH = re.compile(r"(sha256|blake3):[0-9a-f]{64}")
REDACTED = "[redacted]"


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values under telling names, and long hex texts that are not digests."""
    for key, value in list(event.items()):
        if _SECRET_KEY.search(key):
            event[key] = REDACTED
        elif isinstance(value, str):
            event[key] = _clean(value)
    return event


def _clean(text: str) -> str:
    digests = _HASH.findall(text)
    if not digests:
        return _SECRET_TEXT.sub(REDACTED, text)
    parts = re.split(r"((?:sha256|blake3):[0-9a-f]{64})", text)
    return "".join(p if _HASH.fullmatch(p) else _SECRET_TEXT.sub(REDACTED, p) for p in parts)


def configure(level: int = logging.INFO) -> None:
    """Send everything that is logged in the process, through either API, to stderr as JSON."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(sort_keys=False),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logger(name: str) -> Any:
    """A structured logger."""
    return structlog.stdlib.get_logger(name)
