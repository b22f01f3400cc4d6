"""Helpers of the transport tests: a thread that is held, a proxy that does harm, counters."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genie_schemas.errors import GenieError
from genie_transport import Limits, Listener, TransferFuture, TransferManager, connect

WAIT = 20.0  # seconds; a bound on what must happen, never a measure of it
KEY = bytes(range(32))
LOOPBACK = "tcp://127.0.0.1:0"
SMALL = Limits(chunk_bytes=4096, window_bytes=32768)


def eventually(test: Callable[[], bool], what: str) -> None:
    """Wait until test() holds."""
    deadline = time.monotonic() + WAIT
    while not test():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)


def code_of(future: TransferFuture) -> str | None:
    """The failure's code, or None for success."""
    error = future.exception(WAIT)
    return None if error is None else error.code


def record(log: list[Any], item: object, _: TransferFuture) -> None:
    """A done callback, with partial()."""
    log.append(item)


@contextlib.contextmanager
def held(manager: TransferManager) -> Iterator[None]:
    """Hold all movement, so that what is posted meanwhile is queued together."""
    transport: Any = getattr(manager._transport, "chosen", None) or manager._transport
    transport.hold(True)
    try:
        yield
    finally:
        transport.hold(False)


def descriptors() -> set[str]:
    """What the process has open: numbers and what they are.

    Less DPDK's own memory, which stays with the process, and Unix sockets of memif's driver, which
    never closes the one that it listened on.
    """
    driver = memif_sockets()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if not target.startswith("/memfd:seg_") and target not in driver:
                found.add(f"{name} {target}")
    return found


def memif_sockets() -> set[str]:
    """The sockets of this machine that are bound to memif's name, as /proc/self/fd shows them."""
    lines = Path("/proc/net/unix").read_text("utf-8").splitlines()[1:]
    fields = [line.split() for line in lines if line.endswith("/memif.sock")]
    return {f"socket:[{field[6]}]" for field in fields}


def transfer_threads() -> set[str]:
    """Names of this package's threads."""
    return {t.name for t in threading.enumerate() if t.name.startswith("genie-transfer")}


@contextlib.contextmanager
def session(
    folder: Path,
    *,
    path: str = "unix",
    encrypt: bool = False,
    limits: Limits | None = None,
    through: Callable[[str], str] = lambda endpoint: endpoint,
) -> Iterator[tuple[TransferManager, TransferManager]]:
    """(dialled, accepted) over "unix" or "tcp"; `through` may put something in between."""
    endpoint = f"unix://{folder}/{secrets.token_hex(4)}.sock" if path == "unix" else LOOPBACK
    with Listener.open(endpoint) as listener:
        accepted = listener.expect("s", KEY, path=path, encrypt=encrypt, limits=limits)
        where = through(listener.endpoint)
        with (
            accepted,
            connect(where, "s", KEY, path=path, encrypt=encrypt, limits=limits) as dialled,
        ):
            assert accepted.wait_connected(WAIT)
            yield dialled, accepted


class Proxy:
    """Forwards one connection; `tamper(sent_by_dialler, offset, data)` may change the bytes.

    `cut` = (sent_by_dialler, offset) ends the connection, both ways, before that byte. `late` =
    (sent_by_dialler, offset, seconds) keeps the pieces of one way from there on back that long.
    """

    def __init__(
        self,
        folder: Path,
        tamper: Callable[[bool, int, bytes], bytes] | None = None,
        cut: tuple[bool, int] | None = None,
        late: tuple[bool, int, float] | None = None,
    ) -> None:
        self._path = str(folder / f"{secrets.token_hex(4)}.proxy")
        self._tamper = tamper
        self._cut = cut
        self._late = late
        self._kept: list[tuple[float, socket.socket, bytes]] = []
        self._listening: socket.socket | None = None
        self._stop, self._stopped = socket.socketpair()
        self.counts = {True: 0, False: 0}
        self._thread: threading.Thread | None = None

    def __call__(self, endpoint: str) -> str:
        """Stand in front of `endpoint`."""
        kind, _, target = endpoint.partition("://")
        far: Any = target
        near = f"unix://{self._path}"
        if kind == "unix":
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(self._path)
            self._listening.listen(1)
        else:
            far = ("127.0.0.1", int(target.rpartition(":")[2]))
            self._listening = socket.create_server(("127.0.0.1", 0))
            near = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        arguments = (self._listening, far)
        self._thread = threading.Thread(target=self._run, args=arguments, name="proxy")
        self._thread.start()
        return near

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        if self._thread is not None:
            self._thread.join(WAIT)
            assert not self._thread.is_alive()
        self._stopped.close()
        if self._listening is not None:
            self._listening.close()

    def _run(self, listening: socket.socket, target: Any) -> None:
        ready, _, _ = select.select([listening, self._stopped], [], [], WAIT)
        if listening not in ready:
            return
        near, _ = listening.accept()
        far = socket.socket(listening.family)
        with near, far:
            far.connect(target)
            while True:
                wait = self._kept[0][0] - time.monotonic() if self._kept else WAIT
                ready, _, _ = select.select([near, far, self._stopped], [], [], max(wait, 0))
                if self._stopped in ready or not (ready or self._kept):
                    return
                while self._kept and self._kept[0][0] <= time.monotonic():
                    _, sink, data = self._kept.pop(0)
                    sink.sendall(data)
                for source in ready:
                    if not self._forward(source is near, source, far if source is near else near):
                        return

    def _forward(self, by_dialler: bool, source: socket.socket, sink: socket.socket) -> bool:
        try:
            data = source.recv(1 << 16)
            if not data:
                return False
            offset = self.counts[by_dialler]
            self.counts[by_dialler] += len(data)
            if self._tamper is not None:
                data = self._tamper(by_dialler, offset, data)
            if self._cut is not None and self._cut[0] == by_dialler:
                left = self._cut[1] - offset
                if left < len(data):
                    sink.sendall(data[:left])
                    return False
            if self._late and by_dialler == self._late[0] and offset + len(data) > self._late[1]:
                now = max(self._late[1] - offset, 0)
                self._kept.append((time.monotonic() + self._late[2], sink, data[now:]))
                data = data[:now]
            sink.sendall(data)
        except OSError:
            return False
        return True


def refused(action: Callable[[], Any]) -> GenieError:
    """What `action` raises."""
    with pytest.raises(GenieError) as caught:
        action()
    return caught.value


def flipped(at: int, by_dialler: bool, offset: int, data: bytes) -> bytes:
    """For a proxy: one bit of the dialler's byte `at` changed, anything else as it is."""
    if by_dialler and offset <= at < offset + len(data):
        changed = bytearray(data)
        changed[at - offset] ^= 1 << at % 8
        return bytes(changed)
    return data
