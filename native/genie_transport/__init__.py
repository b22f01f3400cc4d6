"""The data plane: registered memory, transfers between peers, and how they end.

    manager = connect("unix:///run/genie/peer.sock", session_id, key)     # or Listener.expect
    src = manager.register(array)
    await manager.post(src, dst, priority=Priority.DECODE, deadline=2.0)  # dst: the peer's handle

A transfer is done when its receiver has verified every byte, and never before. Failures are
`TransferError` (transfers) and `genie_schemas.errors.GenieError` (set-up); both carry GEN06xx.
"""

from genie_transport._arena import Arena
from genie_transport._dial import connect
from genie_transport._errors import TransferError
from genie_transport._fabric import Fabric, FabricHello
from genie_transport._future import TransferFuture
from genie_transport._handle import DMAHandle
from genie_transport._listener import Listener
from genie_transport._manager import TransferManager
from genie_transport._transport import Transport
from genie_transport._types import Capabilities, Limits, Priority, Stats
from genie_transport._ucx_path import built as ucx_built
from genie_transport._wires import Decision

__all__ = [
    "Arena",
    "Capabilities",
    "DMAHandle",
    "Decision",
    "Fabric",
    "FabricHello",
    "Limits",
    "Listener",
    "Priority",
    "Stats",
    "TransferError",
    "TransferFuture",
    "TransferManager",
    "Transport",
    "connect",
    "ucx_built",
]
