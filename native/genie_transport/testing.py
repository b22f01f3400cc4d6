"""Two connected managers in one line, for tests and first steps.

    a, b = pair("tcp")
    src, dst = a.register(b"hello"), b.register(bytearray(5))
    a.post(src, dst).result(timeout=5)

No part of the daemon uses this module.
"""

from __future__ import annotations

import secrets
import tempfile

from genie_transport._dial import connect
from genie_transport._endpoint import PATHS, unknown_path
from genie_transport._listener import Listener
from genie_transport._loopback import LoopbackTransport
from genie_transport._manager import TransferManager
from genie_transport._types import Limits

__all__ = ["PATHS", "pair"]


def pair(path: str, *, limits: Limits | None = None) -> tuple[TransferManager, TransferManager]:
    """Two managers connected over `path`: "loopback", "unix" or "tcp" (127.0.0.1).

    The caller closes both. Raises GenieError GEN0601 for any other path.
    """
    limits = limits or Limits()
    if path == "loopback":
        left, right = LoopbackTransport.pair(limits)
        return TransferManager(left, limits), TransferManager(right, limits)
    if path == "unix":
        with tempfile.TemporaryDirectory(prefix="genie-") as folder:
            return _dialled(f"unix://{folder}/pair.sock", limits)
    if path == "tcp":
        return _dialled("tcp://127.0.0.1:0", limits)
    raise unknown_path(path)


def _dialled(endpoint: str, limits: Limits) -> tuple[TransferManager, TransferManager]:
    key = secrets.token_bytes(32)
    with Listener.open(endpoint) as listener:
        accepted = listener.expect("pair", key, limits=limits)
        dialled = connect(listener.endpoint, "pair", key, limits=limits)
        accepted.wait_connected(10)
    return dialled, accepted
