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
from genie_transport._endpoint import unknown_path
from genie_transport._listener import Listener
from genie_transport._loopback import LoopbackTransport
from genie_transport._manager import TransferManager
from genie_transport._types import Limits
from genie_transport._ucx_path import built
from genie_transport._wires import native_paths

__all__ = ["PATHS", "pair"]

PATHS = ("loopback", "unix", *native_paths(), *(("ucx",) if built() else ()))


def pair(
    path: str,
    *,
    limits: Limits | None = None,
    encrypt: bool = False,
    trusted: bool = False,
) -> tuple[TransferManager, TransferManager]:
    """Two managers connected over `path`: "loopback", "unix", "shm", "tcp" (127.0.0.1) or "ucx".

    `encrypt` has frames sealed with AES-128-GCM. "ucx" takes shared memory; with `trusted`, UCX's
    network transports over the loopback device. The caller closes both. Raises GenieError GEN0601
    for any other path, GEN0609 and GEN0665 for a native one that is not built.
    """
    limits = limits or Limits()
    if path == "loopback":
        left, right = LoopbackTransport.pair(limits)
        return TransferManager(left, limits), TransferManager(right, limits)
    if path in ("unix", "shm") or (path == "ucx" and not trusted):
        with tempfile.TemporaryDirectory(prefix="genie-") as folder:
            return _dialled(f"unix://{folder}/pair.sock", path, limits, encrypt, trusted)
    if path in ("tcp", "ucx"):
        return _dialled("tcp://127.0.0.1:0", path, limits, encrypt, trusted)
    raise unknown_path(path)


def _dialled(
    endpoint: str, path: str, limits: Limits, encrypt: bool, trusted: bool
) -> tuple[TransferManager, TransferManager]:
    key = secrets.token_bytes(32)
    with Listener.open(endpoint) as listener:
        accepted = listener.expect(
            "pair", key, path=path, encrypt=encrypt, trusted=trusted, limits=limits
        )
        dialled = connect(
            listener.endpoint,
            "pair",
            key,
            path=path,
            encrypt=encrypt,
            trusted=trusted,
            limits=limits,
        )
        accepted.wait_connected(10)
    return dialled, accepted
