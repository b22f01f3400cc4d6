"""A process that holds ends of paths and does what the measuring process asks, line by line.

    python -m genie.bench.transport._worker [--namespace]

Requests are JSON objects `{"id", "do", …}` on standard input, one a line; replies `{"id",
"result"}` or `{"id", "error"}` on what was standard output (which from then on is standard error,
so that no library's message gets between replies). Each request has a thread of its own: two ends
in one process can answer each other. The process ends with its standard input.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import secrets
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

from genie.bench.transport._libraries import open_library
from genie.bench.transport._sides import GenieSide, Side
from genie_transport import Limits, Listener, TransferManager, connect
from genie_transport.testing import pair

__all__ = ["Worker", "main"]

_CLONE_NEWNET = 0x40000000
_CONNECT = 30.0  # seconds


class Worker:
    """The requests, a method each; `side` names an end of this process."""

    def __init__(self) -> None:
        self._sides: dict[str, Side] = {}
        self._fabric: Any = None
        self._waiting: dict[str, tuple[Listener, TransferManager]] = {}

    # -- ends --------------------------------------------------------------------------------

    def listen(self, side: str, where: str, key: str, terms: dict[str, Any]) -> str:
        """Expect a peer on `terms` (options of connect); where it has to dial."""
        listener = Listener.open(where)
        manager = listener.expect("bench", bytes.fromhex(key), **terms)
        self._waiting[side] = (listener, manager)
        self._sides[side] = GenieSide(manager)
        return listener.endpoint

    def connected(self, side: str) -> None:
        """Wait for that peer."""
        listener, manager = self._waiting.pop(side)
        if not manager.wait_connected(_CONNECT):
            raise RuntimeError(f"the peer did not come: {manager.failure}")
        listener.close()

    def dial(
        self, side: str, where: str, key: str, terms: dict[str, Any], arena: bool = False
    ) -> None:
        """Connect to a listening end."""
        manager = connect(where, "bench", bytes.fromhex(key), timeout=_CONNECT, **terms)
        self._sides[side] = GenieSide(manager, arena=arena)

    def pair(self, a: str, b: str, path: str) -> None:
        """Both ends in this process."""
        left, right = pair(path)
        self._sides[a], self._sides[b] = GenieSide(left), GenieSide(right)

    def fabric(self, device: str, trusted: bool) -> dict[str, Any]:
        """Open a DPDK device, or answer for the one that is open."""
        from genie_transport import Fabric

        if self._fabric is None:
            self._fabric = Fabric.open(device, trusted=trusted)
        hello = self._fabric.hello()
        return {"hello": hello.to_bytes().hex(), "mtu": self._fabric.mtu}

    def allocate(self) -> int:
        """A number for a connection over the open device."""
        return int(self._fabric.allocate_connection())

    def join(
        self, side: str, hello: str, sealed: bool, keys: list[str], local: int, remote: int
    ) -> None:
        """One end of a session over the open device."""
        from genie_transport import FabricHello
        from genie_transport._handshake import TrafficKeys

        # A port that is its own peer may have no address that another one would accept.
        own = self._fabric.hello()
        data = bytes.fromhex(hello)
        peer = own if data == own.to_bytes() else FabricHello.from_bytes(data)
        peer = replace(peer, trusted=not sealed)
        limits = Limits()
        transport = self._fabric.transport(
            limits,
            TrafficKeys(bytes.fromhex(keys[0]), bytes.fromhex(keys[1])),
            peer=peer,
            local_connection=local,
            peer_connection=remote,
            epoch=1,
        )
        self._sides[side] = GenieSide(TransferManager(transport, limits))

    def library(self, side: str, name: str, first: bool, folder: str) -> None:
        """One end of another library's path."""
        self._sides[side] = open_library(name, first=first, folder=folder)

    def key(self) -> str:
        """A fresh secret."""
        return secrets.token_hex(32)

    # -- what ends do ------------------------------------------------------------------------

    def do(self, side: str, what: str, arguments: dict[str, Any]) -> Any:
        """Call a method of the end."""
        return getattr(self._sides[side], what)(**arguments)

    # -- the process -------------------------------------------------------------------------

    def cpu(self) -> float:
        """CPU seconds of this process so far, those of its ended children included."""
        total = 0.0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            total += usage.ru_utime + usage.ru_stime
        return total

    def run(self, argv: list[str], seconds: float) -> str:
        """Standard output of a program, in this process's network namespace."""
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise RuntimeError(f"{argv[0]}: {said[-1] if said else done.returncode}")
        return done.stdout

    def interface(self, name: str, mtu: int, address: str | None) -> None:
        """Bring an interface of this namespace up."""
        from genie.bench.transport._network import bring_up

        bring_up(name, mtu, address)

    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def close(self) -> None:
        """End all ends."""
        for side in self._sides.values():
            side.close()
        self._sides.clear()
        if self._fabric is not None:
            self._fabric.close()


def _serve(worker: Worker, out: int) -> None:
    lock = threading.Lock()

    def answer(request: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": request.pop("id")}
        try:
            reply["result"] = getattr(worker, request.pop("do"))(**request)
        except Exception as error:
            reply["error"] = f"{error}" or type(error).__name__
        data = (json.dumps(reply) + "\n").encode()
        with lock:
            while data:
                data = data[os.write(out, data) :]

    for line in sys.stdin:
        threading.Thread(target=answer, args=(json.loads(line),), daemon=True).start()


def main() -> None:
    """Run until standard input ends."""
    if "--namespace" in sys.argv[1:]:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    out = os.dup(1)
    os.dup2(2, 1)
    worker = Worker()
    _serve(worker, out)
    worker.close()


if __name__ == "__main__":
    main()
