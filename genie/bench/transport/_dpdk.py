"""The DPDK paths: ports of every driver that needs no NIC, each in the processes it needs.

A daemon's process starts DPDK once, so each end is a worker of its own, but for the ring, whose
one port is its own peer. The same two ports carry the sessions in clear (CRC32C, as a trusted
fabric has it) and sealed (AES-128-GCM).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genie.bench.suites import Unavailable
from genie.bench.transport._network import Cable
from genie.bench.transport._paths import End, Ends
from genie.bench.transport._process import Process
from genie.bench.transport._standalone import Iperf3

__all__ = ["Ports", "af_packet", "af_xdp", "memif", "ring"]

_TRUSTED, _SEALED = "clear", "sealed"
_KERNEL = ("10.98.0.1", "10.98.0.2")  # of the cable that iperf3 runs over
_OURS = ("10.99.0.1", "10.99.0.2")


@dataclass(frozen=True)
class Ports:
    """Two open ports that reach each other, or one that reaches itself."""

    a: Process
    b: Process
    hellos: tuple[str, str]

    def session(self, name: str, *, sealed: bool) -> Ends:
        """A session between them. Closing it leaves the ports open. Raises Unavailable."""
        keys = [self.a.ask("key"), self.a.ask("key")]
        local, remote = self.a.ask("allocate"), self.b.ask("allocate")
        label = _SEALED if sealed else _TRUSTED
        sides = (f"{name}-{label}-a", f"{name}-{label}-b")
        common: dict[str, Any] = {"sealed": sealed}
        self.a.ask(
            "join",
            side=sides[0],
            hello=self.hellos[1],
            keys=keys,
            local=local,
            remote=remote,
            **common,
        )
        self.b.ask(
            "join",
            side=sides[1],
            hello=self.hellos[0],
            keys=keys[::-1],
            local=remote,
            remote=local,
            **common,
        )
        return Ends(name, End(self.a, sides[0]), End(self.b, sides[1]), lambda: None)


def _open(worker: Process, device: str) -> str:
    return str(worker.ask("fabric", device=device, trusted=True, timeout=60.0)["hello"])


def ring(stack: contextlib.ExitStack, faults: str = "") -> Ports:
    """The ring driver: one port, one process. Raises Unavailable."""
    worker = stack.enter_context(Process())
    hello = _open(worker, f"net_ring0{faults}")
    return Ports(worker, worker, (hello, hello))


def memif(stack: contextlib.ExitStack) -> Ports:
    """Shared memory between two DPDK processes, frames of 9000 bytes. Raises Unavailable."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="genie-bench-"))
    b = stack.enter_context(Process())
    a = stack.enter_context(Process())
    socket = f"socket={folder}/memif.sock,mtu=9000"
    server = _open(b, f"net_memif0,role=server,{socket}")
    return Ports(a, b, (_open(a, f"net_memif0,role=client,{socket}"), server))


def af_packet(stack: contextlib.ExitStack, mtu: int = 9000) -> Ports:
    """A packet socket at each end of a veth pair between two namespaces. Raises Unavailable."""
    return _veth(stack, "net_af_packet0", mtu)


def af_xdp(stack: contextlib.ExitStack) -> Ports:
    """The same with XDP sockets, which take 1500 bytes on a veth. Raises Unavailable."""
    return _veth(stack, "net_af_xdp0", 1500)


def _veth(stack: contextlib.ExitStack, driver: str, mtu: int) -> Ports:
    a, b = (stack.enter_context(Process(namespace=True)) for _ in range(2))
    cable = Cable(a, b, mtu)
    cable.up()
    hellos = [
        _open(worker, f"{driver},iface={cable.ends[i]},mtu={mtu},ip={_OURS[i]}")
        for i, worker in enumerate((a, b))
    ]
    return Ports(a, b, (hellos[0], hellos[1]))


class _Namespaced:
    """Runs iperf3's two programs in the namespaces of two workers; see Program."""

    def __init__(self, a: Process, b: Process) -> None:
        self._a, self._b = a, b

    def server(self, argv: list[str]) -> Any:
        return self._b.start("run", argv=argv, seconds=30.0)

    def client(self, argv: list[str], timeout: float) -> str:
        return str(self._a.ask("run", argv=argv, seconds=timeout))

    def end(self, server: Any) -> None:
        with contextlib.suppress(Unavailable):
            server.get(35.0)

    def cpu(self) -> float:
        return float(self._a.ask("cpu") + self._b.ask("cpu"))


def iperf3_veth(stack: contextlib.ExitStack, mtu: int = 9000) -> Callable[[], Iperf3]:
    """iperf3 over a veth pair like the one that the ports have. Raises Unavailable.

    Not over that very pair: the kernel would hand each of its frames to the packet sockets too,
    and iperf3 would look slower than it is.
    """
    a, b = (stack.enter_context(Process(namespace=True)) for _ in range(2))
    cable = Cable(a, b, mtu)
    cable.up(_KERNEL)
    return lambda: Iperf3("iperf3-veth", _Namespaced(a, b), _KERNEL[1])
