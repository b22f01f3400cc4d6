"""A network device under DPDK, and the sessions that share it.

    with Fabric.open("net_af_packet0,iface=veth0,mtu=9000,ip=10.99.0.1") as fabric:
        mine = fabric.hello()                       # goes to the peer over the control channel
        transport = fabric.transport(limits, keys, peer=theirs, local_connection=…, …)

Datagrams of sessions are encrypted unless both sides declare their network trusted. One thread
drives a device and all its sessions; it sleeps when nothing moves.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import secrets
import struct
import threading
import time
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from genie_schemas.closing import Closing
from genie_schemas.errors import GenieError
from genie_transport._datagram import DatagramTransport
from genie_transport._device import Device, parse_device
from genie_transport._errors import setup_error
from genie_transport._handshake import TrafficKeys
from genie_transport._types import Capabilities, Limits
from genie_transport._wires import core

__all__ = ["Fabric", "FabricHello", "dpdk_module"]

_log = logging.getLogger("genie_transport")

_HELLO = struct.Struct(">4s6s4sHIQB32s")
_MAGIC = b"GFH\x01"
_MIN_DATAGRAM, _MAX_DATAGRAM = 512, 65504
_MAX_WINDOW = 1 << 32
_HEADERS = 128  # of a datagram around its part of a message
_RING_SLOTS = 1024
_NS = 1_000_000_000
_LOCAL = ("ring", "net_ring", "net_memif")  # nobody else's traffic is on these

_eal = threading.Lock()  # DPDK's start and its hot-plug are one at a time in a process
_open: weakref.WeakSet[Fabric] = weakref.WeakSet()
_numbers = itertools.count()


@dataclass(frozen=True)
class FabricHello:
    """What a peer must know to send to a fabric. `credit` is what one session may have in flight.

    `mac` has 6 bytes and `ip` 4; `max_datagram` is UDP payload in bytes.
    """

    mac: bytes
    ip: bytes
    udp: int
    max_datagram: int
    credit: int
    trusted: bool
    name: str

    SIZE = _HELLO.size

    def to_bytes(self) -> bytes:
        """Always SIZE bytes."""
        name = self.name.encode()[:32]
        return _HELLO.pack(
            _MAGIC,
            self.mac,
            self.ip,
            self.udp,
            self.max_datagram,
            self.credit,
            int(self.trusted),
            name,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> FabricHello:
        """Raises GenieError GEN0607 for what no fabric of this version says."""
        if len(data) != cls.SIZE:
            raise _strange(f"{len(data)} bytes, not {cls.SIZE}")
        magic, mac, ip, udp, datagram, credit, trusted, name = _HELLO.unpack(data)
        if magic != _MAGIC:
            raise _strange("another version")
        if mac[0] & 1 or not udp or ip[0] in (0, *range(224, 256)):
            raise _strange("an address that no port has")
        if not _MIN_DATAGRAM <= datagram <= _MAX_DATAGRAM or datagram % 4:
            raise _strange(f"datagrams of {datagram} bytes")
        if not datagram <= credit <= _MAX_WINDOW or trusted > 1:
            raise _strange("a credit or flag out of range")
        text = name.rstrip(b"\0")
        if not text.isascii() or not text.decode().isprintable():
            raise _strange("a name that is not printable")
        return cls(mac, ip, udp, datagram, credit, bool(trusted), text.decode())


class Fabric(Closing):
    """One device, opened. Get it from `open`; close it, or use it as a context manager."""

    def __init__(self, device: Device, poller: Any, mac: bytes, *, trusted: bool) -> None:
        from genie_transport import _core  # it is there: the poller came from it

        self._device = device
        self._poller = poller
        self._mac = mac
        self._address_of = _core.address_of
        self._trusted = trusted
        self._lock = threading.Lock()
        self._connections: set[int] = set()
        self._transports: weakref.WeakSet[DatagramTransport] = weakref.WeakSet()
        self._closed = False
        self.name = f"{device.name}@{device.where}" if device.where else device.name
        self.mtu = device.mtu
        self.driver = str(poller.driver)
        _open.add(self)

    @classmethod
    def open(
        cls, device: str, *, trusted: bool = False, memory_mb: int = 256, netns: str | None = None
    ) -> Fabric:
        """Open `device`, spelled as DPDK does with Genie's keys behind it.

            net_af_packet0,iface=veth0    an interface of the kernel, in network namespace `netns`
            net_af_xdp0,iface=veth0       the same through AF_XDP
            net_memif0,role=server,socket=/run/genie/memif.sock     another process, shared memory
            net_ring0                     back to this process
            0000:01:00.0                  a network card that is bound to a DPDK driver

        Keys of all: mtu (bytes), ip, udp (4791), pages (auto, huge, ordinary), shared (whether
        others' traffic is on the path: yes, no, auto); and, for tests, drop, duplicate, late,
        truncate, flip (probabilities), lateness_us, delay_us and seed of a fault shim.
        `memory_mb` is what DPDK gets with its start, which happens once in a process. `trusted`
        declares the network one where nobody forges: datagrams then carry CRC32C alone when the
        peer says so too.

        Raises GenieError: GEN0602 (malformed), GEN0642 (no such device, or it cannot carry the
        MTU), GEN0643 (no memory), GEN0644 (not built), GEN0645 (DPDK did not start), GEN0646 (huge
        pages), GEN0647 (interface not there, down, or MTU too small), GEN0648 (the interface
        carries an address of this host), GEN0649 (permission).
        """
        parsed = parse_device(device)
        if parsed.kind == "ring":
            raise setup_error("GEN0602", "a ring has two ends: Fabric.rings()", at=device)
        if not 64 <= memory_mb <= 1 << 20:
            raise setup_error("GEN0602", f"memory_mb = {memory_mb} is not 64 to 1048576", at=device)
        space = _namespace(netns) if netns is not None else ""
        dpdk = dpdk_module()
        with _eal:
            pci = [parsed.where] if parsed.kind == "pci" else []
            _check(dpdk.start(parsed.pages, memory_mb, pci), device)
            found = dpdk.open(
                parsed.kind,
                parsed.number,
                parsed.where,
                parsed.server,
                parsed.mtu,
                parsed.ip,
                parsed.udp,
                space,
            )
            _check(found, device)
        _, _, port, mac, _ = found
        fabric = cls(parsed, _start(port, parsed), mac, trusted=trusted)
        if trusted:
            _log.warning("%s: declared trusted, datagrams may go unencrypted", fabric.name)
        if not fabric.wakes:
            _log.info("%s: has no receive interrupts, it is looked at every 10 ms", fabric.name)
        return fabric

    @classmethod
    def rings(
        cls, options: str = "ring0", *, trusted: bool = False, slots: int = _RING_SLOTS
    ) -> tuple[Fabric, Fabric]:
        """Two fabrics joined by rings in this process, without DPDK: for tests and simulations.

        `options` takes the keys of `open`. Raises GenieError GEN0602, GEN0605, GEN0609.
        """
        parsed = parse_device(options)
        module, why = core()
        if module is None:
            raise setup_error("GEN0609", "the native transports are not built", cause=why)
        try:
            pollers = module.Poller.rings(
                slots, (parsed.mtu - 28) & ~3, _faults(module, parsed), parsed.seed
            )
        except (RuntimeError, ValueError) as error:
            raise setup_error("GEN0605", "cannot open rings", cause=str(error)) from error
        left, right = (
            cls(parsed, poller, bytes((2, 0, 0, 0, 0, end)), trusted=trusted)
            for end, poller in enumerate(pollers, 1)
        )
        return left, right

    # -- sessions ----------------------------------------------------------------------------

    def hello(self) -> FabricHello:
        """What the peer must know of this side."""
        return FabricHello(
            self._mac,
            self._device.ip,
            self._device.udp,
            int(self._poller.max_datagram) & ~3,
            min(int(self._poller.credit), _MAX_WINDOW),
            self._trusted,
            self.driver,
        )

    def allocate_connection(self) -> int:
        """A number for a session of this side: hard to guess, and used once at a time."""
        with self._lock:
            while True:
                number = secrets.randbits(32)
                if number and number not in self._connections:
                    self._connections.add(number)
                    return number

    def transport(
        self,
        limits: Limits,
        keys: TrafficKeys,
        *,
        peer: FabricHello,
        local_connection: int,
        peer_connection: int,
        epoch: int,
    ) -> DatagramTransport:
        """A session with `peer`. Both sides name the same epoch, and each other's connection.

        Keys are made from `keys`, the epoch and both connections; one combination must not be
        used twice. Raises GenieError GEN0642 (the port cannot carry it), GEN0611 (closed).
        """
        trusted = self._trusted and peer.trusted
        mine = self.hello()
        datagram = min(mine.max_datagram, peer.max_datagram)
        window = max(min(limits.window_bytes, mine.credit), datagram)
        peer_window = max(min(limits.window_bytes, peer.credit), datagram)
        shared = self._device.shared
        with self._lock:
            if self._closed:
                raise setup_error("GEN0611", "the fabric is closed", at=self.name)
            try:
                channel = self._poller.open(
                    (mine.mac, mine.ip, mine.udp),
                    (peer.mac, peer.ip, peer.udp),
                    local_connection,
                    peer_connection,
                    epoch,
                    not trusted,
                    keys.send,
                    keys.receive,
                    datagram,
                    window,
                    peer_window,
                    int(limits.stall_timeout * _NS),
                    limits.queue + 1,  # a session that could move posts one of its own
                    self._device.kind not in _LOCAL if shared is None else shared,
                )
            except (RuntimeError, ValueError, TypeError) as error:
                raise setup_error(
                    "GEN0642", "the port cannot carry this session", at=self.name, cause=str(error)
                ) from error
            capabilities = Capabilities(
                path="ring" if self._device.kind == "ring" else "dpdk",
                remote=self._device.kind not in _LOCAL,
                devices=("cpu",),
                max_transfer=(1 << 63) - 1,
                chunk_bytes=(datagram - _HEADERS) & ~63,
                window_bytes=window,
                verification="crc32c" if trusted else "aes-128-gcm",
                encrypted=not trusted,
            )
            transport = DatagramTransport(channel, self._address_of, capabilities)
            self._transports.add(transport)
        return transport

    # -- state -------------------------------------------------------------------------------

    @property
    def wakes(self) -> bool:
        """Whether the device wakes a sleeper. Else what comes to an idle one waits up to 10 ms."""
        return bool(self._poller.wakes)

    @property
    def trusted(self) -> bool:
        """Whether this side declares its network trusted."""
        return self._trusted

    def up(self) -> bool:
        """Whether the device has a carrier. False when it is closed."""
        return bool(self._poller.up())

    def counters(self) -> dict[str, int]:
        """Datagrams since it was opened, by what became of them.

        received, sent, foreign (none of ours), missed (dropped by the device for want of room),
        and exhausted: how often no packet buffer was free.
        """
        names = ("received", "sent", "foreign", "missed", "exhausted")
        return dict(zip(names, self._poller.counters(), strict=True))

    def close(self) -> None:
        """End all sessions (GEN0611), tell their peers, and give the device back. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            transports = list(self._transports)
        for transport in transports:
            transport.close()
        if transports:
            time.sleep(0.005)  # the last words leave within a few round trips
        with _eal:
            self._poller.stop()
        _open.discard(self)


@cache
def dpdk_module() -> ModuleType:
    """The part that is linked with DPDK, loaded now. Raises GenieError GEN0644."""
    module, why = core()
    if module is not None:
        try:
            from genie_transport import _dpdk
        except ImportError as error:
            why = str(error)
        else:
            loaded: ModuleType = _dpdk
            return loaded
    raise setup_error("GEN0644", "Genie was built without DPDK", cause=why)


def unused_number() -> int:
    """For the names of devices that this process makes for itself."""
    return 9000 - next(_numbers) % 8000


def _start(port: Any, device: Device) -> Any:
    from genie_transport import _core

    try:
        return _core.Poller.start(port, _faults(_core, device), device.seed)
    except ValueError as error:  # modules of two builds
        raise setup_error("GEN0644", "DPDK's part is of another build", cause=str(error)) from error
    except RuntimeError as error:
        raise setup_error("GEN0643", "cannot drive the port", cause=str(error)) from error


def _faults(module: ModuleType, device: Device) -> Any:
    return module.FaultRates(
        **device.faults,
        lateness_ns=1000 * device.lateness_us,
        delay_ns=1000 * device.delay_us,
    )


def _namespace(name: str) -> str:
    if not name or "/" in name or name in (".", "..") or "\0" in name:
        raise setup_error("GEN0602", "not the name of a network namespace", at=name[:64])
    path = Path("/var/run/netns") / name
    if not path.exists():
        raise setup_error(
            "GEN0647", "there is no such network namespace", at=name, remedy=f"ip netns add {name}"
        )
    return str(path)


_MESSAGES = {
    642: "the device cannot be used",
    643: "no memory for the device",
    645: "DPDK did not start",
    646: "there are too few huge pages",
    647: "the interface cannot be used",
    648: "the interface carries an address of this host",
    649: "no permission to use the device",
}


def _check(answer: tuple[Any, ...], device: str) -> None:
    code, text, *_ = answer
    if code:
        message = _MESSAGES.get(code, _MESSAGES[642])
        raise setup_error(f"GEN{code:04d}", message, at=device, cause=text)


def _strange(why: str) -> GenieError:
    return setup_error("GEN0607", f"the peer's fabric says what this version does not know: {why}")


@atexit.register
def _end() -> None:
    """Stop every thread that still writes to Python's memory before the interpreter goes."""
    for fabric in list(_open):
        fabric.close()
