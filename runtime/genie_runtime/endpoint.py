"""Control endpoints: `unix:///path` and `host:port`, and where their data endpoint is."""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from genie_runtime.auth import is_loopback
from genie_schemas.errors import GenieError, Place

DATA_SUFFIX = ".data"
_MAX_UNIX_PATH = 107 - len(DATA_SUFFIX)
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9.\-_]+)):(\d{1,5})")


@dataclass(frozen=True)
class Endpoint:
    """A Unix socket (`path`) or a TCP address (`host`, `port`)."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.path is not None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.is_unix or is_loopback(self.host)

    @property
    def grpc_target(self) -> str:
        """As gRPC names it."""
        return f"unix:{self.path}" if self.is_unix else f"{self._host()}:{self.port}"

    @property
    def data(self) -> str:
        """The data endpoint beside it, as genie_transport names it; TCP ports are the system's."""
        return f"unix://{self.path}{DATA_SUFFIX}" if self.is_unix else f"tcp://{self._host()}:0"

    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.is_unix else f"{self._host()}:{self.port}"


def parse(text: str) -> Endpoint:
    """Read an endpoint. Raises GEN0514."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path.startswith("/") or "\0" in path:
            raise _malformed(text, "the path of a Unix socket is absolute")
        if len(os.fsencode(path)) > _MAX_UNIX_PATH:
            raise _malformed(text, f"the path of a Unix socket has at most {_MAX_UNIX_PATH} bytes")
        return Endpoint(path=Path(path))
    match = _HOST.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise _malformed(text, "it is neither unix:///path nor host:port")
    return Endpoint(host=match[1] or match[2], port=int(match[3]))


def _malformed(text: str, cause: str) -> GenieError:
    return GenieError(
        "GEN0514",
        f"{text[:120]!r} is no endpoint",
        cause=cause,
        remedy="write unix:///absolute/path or host:port, an IPv6 address in brackets",
    )


def default_endpoint() -> Endpoint:
    """The socket of this user's daemon: in $XDG_RUNTIME_DIR, or else in the state directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Endpoint(path=Path(runtime) / "genie" / "genied.sock")
    from genie_runtime.embedded import state_home

    return Endpoint(path=state_home() / "run" / "genied.sock")


def prepare_folder(folder: Path) -> None:
    """Make a Unix socket's folder, 0700; GEN0525 when others may replace files in it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise GenieError(
            "GEN0504",
            "the socket's folder cannot be made",
            Place(file=str(folder)),
            error.strerror,
            "name another --listen",
        ) from None
    if mode & 0o022 and not mode & stat.S_ISVTX:
        raise GenieError(
            "GEN0525",
            "other users may replace files in the socket's folder",
            Place(file=str(folder)),
            f"its mode is {stat.S_IMODE(mode):04o}",
            f"chmod 700 {folder}, or name a folder of your own",
        )


def remove_dead_sockets(path: Path) -> None:
    """Remove a dead daemon's sockets; GEN0504 when somebody listens there.

    Call it while holding the lock beside the socket.
    """
    for name in (path, path.with_name(path.name + DATA_SUFFIX)):
        _remove_dead(name)


def _remove_dead(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise _taken(path, "a file that is no socket has the name")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(1.0)
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _taken(path, error.strerror or str(error)) from None
    else:
        raise _taken(path, "a process listens there")
    finally:
        probe.close()


def _taken(path: Path, cause: str) -> GenieError:
    return GenieError(
        "GEN0504",
        "the address is not free",
        Place(file=str(path)),
        cause,
        "stop the other process, or name another --listen",
    )
