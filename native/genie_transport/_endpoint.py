"""Endpoints: their syntax, what they resolve to, and when TLS is a must."""

from __future__ import annotations

import difflib
import ipaddress
import socket
import ssl
from dataclasses import dataclass

from genie_transport._errors import setup_error

__all__ = [
    "PATHS",
    "Address",
    "Endpoint",
    "check_tls",
    "is_loopback",
    "parse_endpoint",
    "resolve",
    "unknown_path",
]

PATHS = ("loopback", "unix", "shm", "tcp", "dpdk", "ucx")

_MAX_UNIX_PATH = 107  # sun_path, less its final zero

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]


@dataclass(frozen=True)
class Endpoint:
    """`unix:///path` (kind "unix", `path`) or `tcp://host:port` (kind "tcp", `host`, `port`)."""

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Raises GenieError GEN0602 naming what is wrong."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path.startswith("/") or "\0" in path:
            raise _malformed(text, "the path of a Unix socket is absolute: unix:///run/genie.sock")
        if len(path.encode()) > _MAX_UNIX_PATH:
            raise _malformed(text, f"the path of a Unix socket has at most {_MAX_UNIX_PATH} bytes")
        return Endpoint("unix", path=path)
    if text.startswith("tcp://"):
        host, colon, port = text.removeprefix("tcp://").rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise _malformed(text, "IPv6 addresses stand in brackets: tcp://[::1]:9000")
        if not colon or not host:
            raise _malformed(text, "host and port are missing: tcp://127.0.0.1:9000")
        if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65536):
            raise _malformed(text, "the port is a number from 0 to 65535")
        return Endpoint("tcp", host=host, port=int(port))
    raise _malformed(text, "an endpoint starts with unix:// or tcp://")


def resolve(endpoint: Endpoint) -> list[Address]:
    """The (family, address) candidates of a tcp endpoint, in the system's order.

    Resolved once, so that the address that was judged is the address that is used. Raises
    GenieError GEN0604 when the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise setup_error(
            "GEN0604", "the host name does not resolve", at=str(endpoint), cause=str(error)
        ) from error
    # The stubs admit addresses of other families than were asked for
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def check_tls(endpoint: Endpoint, addresses: list[Address], tls: ssl.SSLContext | None) -> None:
    """Refuse addresses beyond this machine without mutual TLS 1.3 (GenieError GEN0603)."""
    if tls is None:
        for _, address in addresses:
            if not is_loopback(address[0]):
                raise setup_error(
                    "GEN0603",
                    f"{address[0]} is not a loopback address, and no TLS was given",
                    at=str(endpoint),
                )
        return
    if tls.verify_mode is not ssl.CERT_REQUIRED:
        raise setup_error(
            "GEN0603", "the TLS context does not require the peer's certificate", at=str(endpoint)
        )
    if tls.minimum_version is not ssl.TLSVersion.TLSv1_3:
        raise setup_error(
            "GEN0603", "the TLS context allows versions before TLS 1.3", at=str(endpoint)
        )


def is_loopback(host: str) -> bool:
    """Whether an address (not a name) is of this machine's loopback network."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def _malformed(text: str, why: str) -> Exception:
    return setup_error(
        "GEN0602",
        f"malformed endpoint: {why}",
        at=text.encode("unicode_escape").decode() or "(empty)",
        remedy="write unix:///absolute/path or tcp://host:port",
    )


def unknown_path(path: str) -> Exception:
    """GenieError GEN0601, with the nearest name when there is one."""
    near = difflib.get_close_matches(path, PATHS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return setup_error(
        "GEN0601", f"no transport path {path!r}{hint}", cause=f"this build has {', '.join(PATHS)}"
    )
