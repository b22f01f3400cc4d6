"""A process in front of every endpoint of `genie bench semantics` that counts and delays.

Every link of every mode goes through it: what it read from a socket has crossed a process boundary,
framing included, whoever sent it. A link's delay holds each piece back for as long as that piece
would have travelled, in both directions; the rate is not limited. It is run as
`python -m genie.bench.semantics._relay` and told what to do in lines of JSON (`_wires`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections import deque
from typing import Any

__all__ = ["Relay", "main"]

_PIECE = 1 << 18
_MOST_HELD = 1 << 28
"""Bytes on their way in one direction of a link, beyond which its sender has to wait."""

_DIAL_SECONDS = 10.0


class Link:
    """A listening port, and where its connections lead. `delay` is in seconds, one way."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.delay = 0.0
        self._pumps: list[tuple[Pump, Pump]] = []
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(self._target, timeout=_DIAL_SECONDS)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pumps += [(Pump(self, near, far), Pump(self, far, near))]

    def counts(self) -> tuple[int, int]:
        """Bytes (there, back) so far."""
        pumps = list(self._pumps)
        return sum(there.count for there, _ in pumps), sum(back.count for _, back in pumps)


class Pump:
    """One direction of one connection: a thread reads, and another sends what is due.

    `count` is the bytes that were read. Without a delay the reading thread sends them itself.
    """

    def __init__(self, link: Link, source: socket.socket, sink: socket.socket) -> None:
        self.count = 0
        self._link, self._source, self._sink = link, source, sink
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._sending = False
        self._broken = False
        self._changed = threading.Condition()
        for work in (self._read, self._send):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                piece = self._source.recv(_PIECE)
            except OSError:
                piece = b""
            due = time.monotonic() + self._link.delay
            self.count += len(piece)
            with self._changed:
                direct = bool(piece) and not (self._link.delay or self._pieces or self._sending)
                if not direct:
                    self._pieces.append((due, piece))
                    self._held += len(piece)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._held < _MOST_HELD or self._broken)
            if direct and not self._pass(piece):
                return
            if not piece:
                return

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._pieces))
                due, piece = self._pieces[0]
                left = due - time.monotonic()
                if left <= 0:
                    self._pieces.popleft()
                    self._sending = True
            if left > 0:
                time.sleep(left)
                continue
            if not piece:
                with contextlib.suppress(OSError):
                    self._sink.shutdown(socket.SHUT_WR)
                return
            if not self._pass(piece):
                return
            with self._changed:
                self._sending = False
                self._held -= len(piece)
                self._changed.notify_all()

    def _pass(self, piece: bytes) -> bool:
        try:
            self._sink.sendall(piece)
        except OSError:
            with contextlib.suppress(OSError):
                self._source.shutdown(socket.SHUT_RDWR)
            with self._changed:
                self._broken = True
                self._changed.notify_all()
            return False
        return True


class Relay:
    """Links by name; answers requests."""

    def __init__(self) -> None:
        self._links: dict[str, list[Link]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a line of JSON says."""
        if request["do"] == "open":
            link = Link((request["host"], request["port"]))
            link.delay = request["delay"]
            self._links.setdefault(request["name"], []).append(link)
            return {"port": link.port}
        if request["do"] == "delay":
            for link in self._links.get(request["name"], []):
                link.delay = request["delay"]
            return {}
        return {
            name: [sum(counts) for counts in zip(*(link.counts() for link in links), strict=True)]
            for name, links in self._links.items()
        }


def main() -> int:
    """Answer requests until standard input ends."""
    relay = Relay()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(relay.answer(json.loads(line))) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
