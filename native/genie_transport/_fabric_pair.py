"""Pairs of managers over fabrics, in one process, for tests and measurements."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from genie_schemas.errors import GenieError
from genie_transport._errors import setup_error
from genie_transport._fabric import Fabric, dpdk_module, unused_number
from genie_transport._handshake import TrafficKeys
from genie_transport._manager import TransferManager
from genie_transport._types import Limits

__all__ = ["FABRIC_PATHS", "fabric_pair", "missing", "veth_pair"]

FABRIC_PATHS = ("dpdk", "dpdk-ring", "dpdk-memif", "dpdk-af_packet", "dpdk-af_xdp")

_EPOCH = 1
_MEMORY_MB = 512
_MTU = {"dpdk-af_packet": 9000, "dpdk-af_xdp": 1500}


@dataclass(frozen=True)
class Veth:
    """Two joined interfaces, each in a network namespace of its own."""

    interfaces: tuple[str, str]
    namespaces: tuple[str, str]


@contextlib.contextmanager
def veth_pair(mtu: int) -> Iterator[Veth]:
    """Make interfaces and namespaces, and remove them afterwards. Raises GenieError GEN0649."""
    if os.geteuid() != 0:
        raise setup_error("GEN0649", "network namespaces need root")
    from pyroute2 import IPRoute, NetNS, netns

    tag = secrets.token_hex(3)
    veth = Veth((f"gn{tag}a", f"gn{tag}b"), (f"genie-{tag}-a", f"genie-{tag}-b"))
    try:
        for space in veth.namespaces:
            netns.create(space)
        with IPRoute() as here:
            left, right = veth.interfaces
            here.link("add", ifname=left, kind="veth", peer={"ifname": right})
            for interface, space in zip(veth.interfaces, veth.namespaces, strict=True):
                index = here.link_lookup(ifname=interface)[0]
                here.link("set", index=index, net_ns_fd=space)
        for interface, space in zip(veth.interfaces, veth.namespaces, strict=True):
            with NetNS(space) as there:
                index = there.link_lookup(ifname=interface)[0]
                there.link("set", index=index, mtu=mtu)
                there.link("set", index=index, state="up")
        yield veth
    finally:
        for space in veth.namespaces:
            with contextlib.suppress(OSError):
                netns.remove(space)


def missing(path: str) -> str | None:
    """Why `path` cannot be had here, or None."""
    try:
        dpdk_module()
    except GenieError as error:
        return f"{error.code}: {error.cause}"
    if path in _MTU and os.geteuid() != 0:
        return "network namespaces and packet sockets need root"
    return None


def fabric_pair(
    path: str, *, limits: Limits, encrypt: bool, options: str = ""
) -> tuple[TransferManager, TransferManager]:
    """Two managers over `path`, one of FABRIC_PATHS or "ring" (no DPDK).

    `options` are more keys of the device (",drop=0.01"). Both devices go when both managers have
    ended. Raises what Fabric.open raises.
    """
    with contextlib.ExitStack() as stack:
        left, right = _fabrics(path, options, not encrypt, stack)
        keys = secrets.token_bytes(32), secrets.token_bytes(32)
        numbers = left.allocate_connection(), right.allocate_connection()
        transports = [
            fabric.transport(
                limits,
                TrafficKeys(keys[end], keys[1 - end]),
                peer=other.hello(),
                local_connection=numbers[end],
                peer_connection=numbers[1 - end],
                epoch=_EPOCH,
            )
            for end, (fabric, other) in enumerate(((left, right), (right, left)))
        ]
        managers = [TransferManager(transport, limits) for transport in transports]
        rest = stack.pop_all()
    atexit.register(rest.close)  # managers that nobody closes: interfaces outlive processes
    open_ends = [0, 1]

    def ended() -> None:
        open_ends.pop()
        if not open_ends:
            atexit.unregister(rest.close)
            rest.close()

    for transport in transports:
        transport.on_end = ended
    return managers[0], managers[1]


def _fabrics(
    path: str, options: str, trusted: bool, stack: contextlib.ExitStack
) -> tuple[Fabric, Fabric]:
    def opened(device: str, netns: str | None = None) -> Fabric:
        return stack.enter_context(
            Fabric.open(device + options, trusted=trusted, memory_mb=_MEMORY_MB, netns=netns)
        )

    number = unused_number()
    if path == "ring":
        left, right = Fabric.rings(f"ring{number}{options}", trusted=trusted)
        return stack.enter_context(left), stack.enter_context(right)
    if path in ("dpdk", "dpdk-ring"):
        both = opened(f"net_ring{number}")
        return both, both
    if path == "dpdk-memif":
        # Within one process DPDK tells sockets apart by their spelling, and roles by socket.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="genie-"))
        first = opened(f"net_memif{number},role=server,socket={folder}/memif.sock")
        number = unused_number()
        return first, opened(f"net_memif{number},role=client,socket={folder}/./memif.sock")
    mtu = _MTU[path]
    veth = stack.enter_context(veth_pair(mtu))
    driver = path.replace("dpdk-", "net_")
    left, right = (
        opened(
            f"{driver}{unused_number()},iface={interface},mtu={mtu},ip=10.99.0.{end}",
            netns=space,
        )
        for end, interface, space in zip((1, 2), veth.interfaces, veth.namespaces, strict=True)
    )
    return left, right
