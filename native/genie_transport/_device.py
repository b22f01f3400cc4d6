"""The spelling of a fabric's device, with everything that is wrong with one said as GEN0602."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from genie_schemas.errors import GenieError
from genie_transport._errors import setup_error

__all__ = ["KINDS", "Device", "parse_device"]

# Virtual devices, by driver: the MTU when none is named, and whether they need an interface.
KINDS: Final = {
    "ring": 9000,  # in this process, without DPDK
    "net_ring": 9000,
    "net_memif": 9000,
    "net_af_packet": 1500,
    "net_af_xdp": 1500,
}
_VDEV = re.compile(r"(ring|net_[a-z_]*[a-z])([0-9]{0,4})")
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_MAX_SOCKET = 107  # sun_path, less its final zero
_RATES = ("drop", "duplicate", "late", "truncate", "flip")


@dataclass(frozen=True)
class Device:
    """One device as it was asked for. `where` is an interface, a socket's path or a PCI address.

    `shared` says whether others' traffic uses the path too; None when only the driver can tell.
    `faults` are the rates of a deliberate fault shim in front of it, for tests and measurements.
    """

    name: str
    kind: str
    number: int
    where: str
    server: bool
    mtu: int
    ip: bytes
    udp: int
    pages: str
    shared: bool | None
    faults: dict[str, float] = field(default_factory=dict)
    lateness_us: int = 0
    delay_us: int = 0
    seed: int = 1


def parse_device(text: str) -> Device:
    """Raises GenieError GEN0602 naming what is wrong."""
    name, *pairs = text.split(",")
    keys: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise _bad(text, f"'{pair}' is not key=value")
        if key in keys:
            raise _bad(text, f"{key} is named twice")
        keys[key] = value
    take = _Keys(text, keys)
    virtual = _VDEV.fullmatch(name)
    if virtual is not None and virtual[1] in KINDS:
        kind, number = virtual[1], int(virtual[2] or 0)
    elif _PCI.fullmatch(name):
        kind, number = "pci", 0
    else:
        raise _bad(text, f"'{name}' is neither a PCI address nor one of {', '.join(KINDS)}")
    where, server = _where(text, name, kind, take)
    device = Device(
        name=name,
        kind=kind,
        number=number,
        where=where,
        server=server,
        mtu=take.number("mtu", KINDS.get(kind, 1500), 576, 65535),
        ip=take.parsed("ip", bytes((10, 0, 0, 1)), _ipv4, "an IPv4 address"),
        udp=take.number("udp", 4791, 1, 65535),
        pages=take.one_of("pages", "auto", ("auto", "huge", "ordinary")),
        shared={"auto": None, "yes": True, "no": False}[
            take.one_of("shared", "auto", ("auto", "yes", "no"))
        ],
        faults={rate: take.parsed(rate, 0.0, _rate, "a number from 0 to 1") for rate in _RATES},
        lateness_us=take.number("lateness_us", 0, 0, 10_000_000),
        delay_us=take.number("delay_us", 0, 0, 1_000_000),
        seed=take.number("seed", 1, 0, 1 << 62),
    )
    take.done()
    return device


def _where(text: str, name: str, kind: str, take: _Keys) -> tuple[str, bool]:
    if kind in ("net_af_packet", "net_af_xdp"):
        interface = take.parsed("iface", "", _interface, "the name of an interface")
        if not interface:
            raise _bad(text, f"{kind} needs the interface that it uses: iface=NAME")
        return interface, False
    if kind == "net_memif":
        role = take.one_of("role", "", ("server", "client"))
        socket = take.parsed("socket", "", _socket, "an absolute path of at most 107 bytes")
        if not role or not socket:
            raise _bad(text, "net_memif needs role=server or role=client, and socket=/PATH")
        return socket, role == "server"
    return name if kind == "pci" else "", False


class _Keys:
    """What was written behind the device's name; each key is taken once, and none may be left."""

    def __init__(self, text: str, keys: dict[str, str]) -> None:
        self._text = text
        self._left = keys

    def parsed(self, key: str, default: Any, parse: Callable[[str], Any], what: str) -> Any:
        value = self._left.pop(key, None)
        if value is None:
            return default
        try:
            return parse(value)
        except ValueError:
            raise _bad(self._text, f"{key}={value[:64]} is not {what}") from None

    def number(self, key: str, default: int, least: int, most: int) -> int:
        def parse(value: str) -> int:
            # The length bound comes first: int() of a megabyte of digits is slow.
            if len(value) > 20 or not value.isdecimal() or not least <= int(value) <= most:
                raise ValueError(value)
            return int(value)

        return int(self.parsed(key, default, parse, f"a number from {least} to {most}"))

    def one_of(self, key: str, default: str, values: tuple[str, ...]) -> str:
        def parse(value: str) -> str:
            if value not in values:
                raise ValueError(value)
            return value

        return str(self.parsed(key, default, parse, " or ".join(values)))

    def done(self) -> None:
        if self._left:
            raise _bad(self._text, f"{', '.join(sorted(self._left))}: no such key here")


def _ipv4(value: str) -> bytes:
    address = ipaddress.IPv4Address(value)
    if address.is_multicast or address.is_unspecified:
        raise ValueError(value)
    return address.packed


def _rate(value: str) -> float:
    rate = float(value) if len(value) <= 32 else -1.0
    if not 0.0 <= rate <= 1.0:
        raise ValueError(value)
    return rate


def _interface(value: str) -> str:
    if not _INTERFACE.fullmatch(value):
        raise ValueError(value)
    return value


def _socket(value: str) -> str:
    if not value.startswith("/") or "\0" in value or len(value.encode()) > _MAX_SOCKET:
        raise ValueError(value)
    return value


def _bad(text: str, why: str) -> GenieError:
    return setup_error(
        "GEN0602",
        f"malformed device: {why}",
        at=text[:200],
        remedy="write it as DPDK names it, with Genie's keys behind: "
        "net_af_packet0,iface=eth1,mtu=9000,ip=10.99.0.1",
    )
