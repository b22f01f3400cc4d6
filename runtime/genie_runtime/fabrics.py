"""A daemon's DPDK ports: what `--dpdk` says, interfaces made ready for it, and opening them.

    net_af_packet0,iface=eth1,mtu=9000,ip=10.99.0.1     an interface of this host
    net_af_packet0,iface=veth0,netns=blue               one of the network namespace "blue"
    net_af_packet0,iface=eth1,mtu=9000,setup=yes        brought up with that MTU first
    net_memif0,role=server,socket=/run/genie/memif.sock another process of this host
    0000:01:00.0,ip=10.99.0.1                           a card bound to a driver of DPDK

`setup` and `netns` are the daemon's own keys; all others are `genie_transport.Fabric`'s.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_runtime import logs
from genie_schemas.errors import GenieError, Place

if TYPE_CHECKING:
    from genie_transport import Fabric

__all__ = ["FabricOptions", "candidates", "open_fabrics", "prepare_interface"]

_MTU = 1500
_LEAST_MTU, _MOST_MTU = 576, 65535
_MIB = 1 << 20
_NAMESPACES = Path("/var/run/netns")


@dataclass(frozen=True)
class FabricOptions:
    """What `genied` was told: devices, whether their networks are trusted, DPDK's memory."""

    devices: tuple[str, ...] = ()
    trusted: bool = False
    memory_bytes: int = 256 * _MIB


def open_fabrics(options: FabricOptions, closers: ExitStack) -> list[Fabric]:
    """Open every device; `closers` closes them. All or none.

    Raises GenieError: GEN0515 (a key of the daemon's own is wrong), GEN0532 (the interface cannot
    be made ready) and those of `Fabric.open`.
    """
    if not options.devices:
        return []
    # Not before it was asked for: a daemon without ports loads nothing of DPDK.
    from genie_transport import Fabric

    log = logs.logger("genied")
    opened = []
    for text in options.devices:
        device, own = _split(text)
        netns = own.get("netns")
        if own.get("setup") == "yes":
            prepare_interface(_key(device, "iface", text), _mtu(device, text), netns)
        fabric = Fabric.open(
            device, trusted=options.trusted, memory_mb=options.memory_bytes // _MIB, netns=netns
        )
        closers.callback(fabric.close)
        opened.append(fabric)
        log.info("port", name=fabric.name, driver=fabric.driver, mtu=fabric.mtu, netns=netns or "")
    if options.trusted:
        log.warning(
            "trusted fabric: datagrams between daemons that both say so carry CRC32C alone, "
            "unencrypted and unauthenticated",
            ports=[fabric.name for fabric in opened],
        )
    return opened


def _split(text: str) -> tuple[str, dict[str, str]]:
    """(what Fabric reads, the daemon's own keys). Raises GEN0515."""
    name, *pairs = text.split(",")
    theirs, own = [name], {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in ("setup", "netns"):
            theirs.append(pair)
            continue
        if key in own or not value or (key == "setup" and value not in ("yes", "no")):
            raise _wrong(text, f"{pair!r} is not setup=yes, setup=no or netns=NAME, once")
        own[key] = value
    return ",".join(theirs), own


def _key(device: str, key: str, text: str) -> str:
    for pair in device.split(",")[1:]:
        name, _, value = pair.partition("=")
        if name == key and value:
            return value
    raise _wrong(text, f"setup=yes needs an interface: {key}=NAME")


def _mtu(device: str, text: str) -> int:
    found = next((p[4:] for p in device.split(",") if p.startswith("mtu=")), str(_MTU))
    if not found.isdecimal() or len(found) > 5 or not _LEAST_MTU <= int(found) <= _MOST_MTU:
        raise _wrong(text, f"an MTU is {_LEAST_MTU} to {_MOST_MTU}")
    return int(found)


def _wrong(text: str, cause: str) -> GenieError:
    return GenieError(
        "GEN0515",
        f"--dpdk {text[:200]!r} is not understood",
        cause=cause,
        remedy="write it as in net_af_packet0,iface=eth1,mtu=9000,ip=10.99.0.1,setup=yes",
    )


# -- interfaces ----------------------------------------------------------------------------------


def candidates(netns: str | None = None) -> list[str]:
    """Interfaces that a port could have: Ethernet, no address of the host's, in no bridge."""
    with _netlink(netns) as route:
        addressed = _addressed(route)
        return sorted(
            link.get_attr("IFLA_IFNAME")
            for link in route.get_links()
            if _is_ethernet(link) and link["index"] not in addressed and not _master(link)
        )


def prepare_interface(name: str, mtu: int, netns: str | None = None) -> None:
    """Bring `name` up with `mtu` bytes. Only ever what the user named, and never the host's own.

    Raises GenieError GEN0532: not there, carries an address of the host, belongs to a bridge or
    bond, takes no such MTU, or this process may not change it.
    """
    place = f"{name} in {netns}" if netns else name
    try:
        with _netlink(netns) as route:
            found = route.link_lookup(ifname=name)
            if not found:
                raise _unready(place, "there is no such interface", _usable(netns))
            (link,) = route.get_links(found[0])
            if not _is_ethernet(link):
                raise _unready(place, "it is no Ethernet interface", _usable(netns))
            if found[0] in _addressed(route):
                raise _unready(
                    place,
                    "it carries an address of this host, which would lose its traffic",
                    _usable(netns),
                )
            if _master(link):
                raise _unready(place, "it belongs to a bridge or bond of this host", _usable(netns))
            if link.get_attr("IFLA_MTU") != mtu:
                route.link("set", index=found[0], mtu=mtu)
            route.link("set", index=found[0], state="up")
    except FileNotFoundError:
        raise _unready(
            place, "there is no such network namespace", f"ip netns add {netns}"
        ) from None
    except OSError as error:
        raise _unready(place, error.strerror or str(error), _allowed(error)) from None
    except _netlink_error() as error:
        cause = f"the kernel refused: {error}"
        raise _unready(place, cause, _allowed(OSError(error.code, ""))) from None


def _netlink(netns: str | None) -> Any:
    from pyroute2 import IPRoute

    if not netns:
        return IPRoute()
    # Asked first: one that fails to open leaves its event loop behind, which says so on stderr.
    (_NAMESPACES / netns).stat()
    return IPRoute(netns=netns, flags=0)


def _netlink_error() -> type[Any]:
    from pyroute2 import NetlinkError

    found: type[Any] = NetlinkError
    return found


def _addressed(route: Any) -> set[int]:
    """Indices of interfaces with an address that somebody may use: link-local ones do not count."""
    link_scope = 253
    return {a["index"] for a in route.get_addr() if a["scope"] < link_scope}


def _is_ethernet(link: Any) -> bool:
    arphrd_ether, iff_loopback = 1, 8
    return link["ifi_type"] == arphrd_ether and not link["flags"] & iff_loopback


def _master(link: Any) -> bool:
    return link.get_attr("IFLA_MASTER") is not None


def _usable(netns: str | None) -> str:
    names = candidates(netns)
    return f"name another; there are {', '.join(names)}" if names else "add one without an address"


def _allowed(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "run genied as root or with CAP_NET_ADMIN, or bring the interface up beforehand"
    if error.errno == errno.EINVAL:
        return "name an MTU that the interface takes (ip -d link show)"
    return "bring the interface up beforehand, and leave setup=yes out"


def _unready(place: str, cause: str, remedy: str) -> GenieError:
    return GenieError(
        "GEN0532",
        "the interface cannot be made ready for the port",
        Place(path=place),
        cause,
        remedy,
    )
