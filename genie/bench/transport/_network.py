"""Two network namespaces and the virtual cable between them, for as long as two workers live.

The namespaces are the workers' own and have no names: whatever happens to this process, they and
their interfaces are gone when the workers are, and workers end with their standard input.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from genie.bench.suites import Unavailable
from genie.bench.transport._process import Process

__all__ = ["Cable", "bring_up", "namespaces"]


class Cable:
    """A veth pair, one end in each worker's namespace."""

    def __init__(self, a: Process, b: Process, mtu: int) -> None:
        """Raises Unavailable when the kernel refuses."""
        from pyroute2 import IPRoute, NetlinkError

        name = f"gb{secrets.token_hex(4)}"
        self.ends = (f"{name}a", f"{name}b")
        self.mtu = mtu
        self._sides = (a, b)
        try:
            with IPRoute() as netlink:
                netlink.link(
                    "add",
                    ifname=self.ends[0],
                    kind="veth",
                    net_ns_pid=a.pid,
                    mtu=mtu,
                    peer={"ifname": self.ends[1], "net_ns_pid": b.pid, "mtu": mtu},
                )
        except NetlinkError as error:
            what = errno.errorcode.get(error.code, str(error.code))
            raise Unavailable(f"the kernel makes no veth pair: {what}") from error

    def up(self, addresses: tuple[str, str] | None = None) -> None:
        """Bring both ends up, with the kernel's own addresses (a /24) or without any."""
        for i, side in enumerate(self._sides):
            address = addresses[i] if addresses else None
            side.ask("interface", name=self.ends[i], mtu=self.mtu, address=address)


def bring_up(name: str, mtu: int, address: str | None) -> None:
    """In the namespace of this process: set an interface's MTU and address, and bring it up."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=name)
        if address is not None:
            netlink.addr("add", index=index, address=address, prefixlen=24)
        netlink.link("set", index=index, mtu=mtu, state="up")


@contextmanager
def namespaces() -> Iterator[tuple[Process, Process]]:
    """Two workers, each in a network namespace of its own. Raises Unavailable."""
    with Process(namespace=True) as a, Process(namespace=True) as b:
        yield a, b
