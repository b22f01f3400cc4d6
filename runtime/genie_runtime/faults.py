"""Named points around every durable action, at which a test can make the process die.

`GENIE_FAULT_POINT=publish.before_commit` kills the process (SIGKILL, nothing is flushed) when it
first reaches that point, `publish.before_commit:3` when it reaches it the third time. This is a
testing aid: it can only end the process, at places where it could have ended anyway.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

VARIABLE: Final = "GENIE_FAULT_POINT"

POINTS: Final[dict[str, str]] = {
    "accept.before_commit": "a run was admitted; its acceptance is not yet in the ledger",
    "accept.after_commit": "the acceptance is durable; nothing has run",
    "publish.before_file": "the outputs are computed; nothing of them is on disk",
    "publish.after_file": "the outputs' private file is written and synced, not yet renamed",
    "publish.after_rename": "the outputs' file has its name; no record points at it",
    "publish.before_commit": "the record of the publication is prepared, not committed",
    "publish.after_commit": "the publication is durable; the client has not got the outputs",
    "publish.after_send": "the client has the outputs; it has not been told that the run ended",
    "fail.before_commit": "an attempt failed; the ledger still calls the run accepted",
    "fail.after_commit": "the failure is durable; the client has not been told",
    "evict.before_commit": "a recorded result is to be dropped; its record is unchanged",
    "evict.after_commit": "the record says evicted; the outputs' file is still there",
}
"""Every point, in the order of a run's life, and the state that it leaves behind."""

_lock = threading.Lock()
_counts: dict[str, int] = {}


def _armed() -> tuple[str, int] | None:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    name, _, count = text.partition(":")
    if name not in POINTS:
        raise ValueError(f"{VARIABLE} names no fault point: {name!r}")
    return name, int(count) if count else 1


_ARMED = _armed()


def reach(name: str) -> None:
    """Say that the process is at point `name`; ends it there when the environment asks so."""
    if name not in POINTS:
        raise KeyError(name)
    if _ARMED is None or _ARMED[0] != name:
        return
    with _lock:
        _counts[name] = _counts.get(name, 0) + 1
        if _counts[name] >= _ARMED[1]:
            os.kill(os.getpid(), signal.SIGKILL)
