"""Waiting for a daemon that a suite has started."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

__all__ = ["until_listening"]

_PAUSE = 0.002
"""Seconds between looks: what a start that is timed may be told late."""


def until_listening(path: Path, daemon: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Wait until somebody listens on the Unix socket `path`, whose file is there a moment before.

    Raises RuntimeError when the daemon has ended, or after `seconds`.
    """
    end = time.monotonic() + seconds
    while not _listens(path):
        if daemon.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the daemon did not start")
        time.sleep(_PAUSE)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as there:
        return there.connect_ex(str(path)) == 0
