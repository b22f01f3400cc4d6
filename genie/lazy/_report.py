"""The lazy device's counters as a file, for programs that nobody wants to change."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["leave_at_exit"]

ENVIRONMENT = "GENIE_LAZY_STATS"

_log = logging.getLogger("genie.lazy")


def leave_at_exit(stats: Callable[[], Mapping[str, Any]]) -> None:
    """Where GENIE_LAZY_STATS names a file, write the counters there as JSON when the program ends.

    The file is replaced as a whole. One that cannot be written is logged: the program has done its
    work, and its exit code is its own.
    """
    name = os.environ.get(ENVIRONMENT)
    if name:
        atexit.register(_write, Path(name).absolute(), os.getpid(), stats)


def _write(path: Path, process: int, stats: Callable[[], Mapping[str, Any]]) -> None:
    if os.getpid() != process:  # a fork of the program, with counters that are half its own
        return
    text = json.dumps(stats(), indent=2, ensure_ascii=False) + "\n"
    temporary = path.with_name(f".{path.name}.{process}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        _log.warning("%s: the counters cannot be written to %s: %s", ENVIRONMENT, path, error)
