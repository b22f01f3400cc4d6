"""Two connected managers in one line, for tests and first steps.

    a, b = pair("tcp")
    src, dst = a.register(b"hello"), b.register(bytearray(5))
    a.post(src, dst).result(timeout=5)

No part of the daemon uses this module.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator

from genie_transport._dial import connect
from genie_transport._endpoint import unknown_path
from genie_transport._fabric_pair import FABRIC_PATHS, fabric_pair
from genie_transport._listener import Listener
from genie_transport._loopback import LoopbackTransport
from genie_transport._manager import TransferManager
from genie_transport._types import Limits
from genie_transport._ucx_path import built
from genie_transport._wires import native_paths

__all__ = ["PATHS", "pair"]

PATHS = (
    "loopback",
    "unix",
    *native_paths(),
    *(("ring",) if native_paths() else ()),
    *(("ucx", "ucx-tcp") if built() else ()),
)


def pair(
    path: str, *, limits: Limits | None = None, encrypt: bool = False, options: str = ""
) -> tuple[TransferManager, TransferManager]:
    """Two managers connected over `path`: "loopback", "unix", "shm" or "tcp" (127.0.0.1).

    Over DPDK: "dpdk" or "dpdk-ring" (a device that gives back what it gets), "dpdk-memif" (shared
    memory between two devices), "dpdk-af_packet" and "dpdk-af_xdp" (a veth pair between two
    network namespaces, which needs root). "ring" is the datagram protocol without DPDK. Over UCX:
    "ucx" (its shared memory) and "ucx-tcp" (its TCP, on the loopback device).

    `encrypt` has frames of tcp, ring, dpdk and ucx sealed with AES-128-GCM. `options` are further
    keys of the devices of ring and dpdk, such as ",drop=0.01". The caller closes both managers.
    Raises GenieError GEN0601 for any other path, GEN0609 and GEN0665 for a native one where the
    native part is not built, GEN064x where a device cannot be had.
    """
    limits = limits or Limits()
    if path == "loopback":
        left, right = LoopbackTransport.pair(limits)
        return TransferManager(left, limits), TransferManager(right, limits)
    if path in ("unix", "shm", "ucx"):
        with tempfile.TemporaryDirectory(prefix="genie-") as folder:
            return _dialled(f"unix://{folder}/pair.sock", path, limits, encrypt)
    if path == "tcp":
        return _dialled("tcp://127.0.0.1:0", path, limits, encrypt)
    if path == "ucx-tcp":
        with _ucx_transports("tcp"):
            return _dialled("tcp://127.0.0.1:0", "ucx", limits, encrypt)
    if path == "ring" or path in FABRIC_PATHS:
        return fabric_pair(path, limits=limits, encrypt=encrypt, options=options)
    raise unknown_path(path)


def _dialled(
    endpoint: str, path: str, limits: Limits, encrypt: bool
) -> tuple[TransferManager, TransferManager]:
    key = secrets.token_bytes(32)
    with Listener.open(endpoint) as listener:
        accepted = listener.expect(
            "pair", key, path=path, encrypt=encrypt, trusted=True, limits=limits
        )
        where = listener.endpoint
        dialled = connect(
            where, "pair", key, path=path, encrypt=encrypt, trusted=True, limits=limits
        )
        accepted.wait_connected(10)
    return dialled, accepted


@contextlib.contextmanager
def _ucx_transports(names: str) -> Iterator[None]:
    """Have workers of UCX that start meanwhile take these of its transports only."""
    before = os.environ.get("UCX_TLS")
    os.environ["UCX_TLS"] = names
    try:
        yield
    finally:
        if before is None:
            del os.environ["UCX_TLS"]
        else:
            os.environ["UCX_TLS"] = before
