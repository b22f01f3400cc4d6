"""The measuring process's hold on the relay (`_relay`): links opened, delayed and counted."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from genie_schemas.closing import Closing

__all__ = ["Traffic", "Wires"]

_STILL = 0.02
_PATIENCE = 10.0


@dataclass(frozen=True)
class Traffic:
    """Bytes that crossed process boundaries: to and from the client, and between devices."""

    sent: int
    received: int
    between: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.sent + self.received + self.between

    def each(self, count: int) -> Traffic:
        """The share of one of `count`, to whole bytes."""
        return Traffic(self.sent // count, self.received // count, self.between // count)

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.sent - other.sent, self.received - other.received, self.between - other.between
        )


class Wires(Closing):
    """A relay process. A link is of a mode: the client's, which is delayed, or between devices."""

    def __init__(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "genie.bench.semantics._relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._asking = threading.Lock()
        self._delay = 0.0
        self._modes: set[str] = set()

    def open(self, port: int, mode: str, *, between: bool = False) -> int:
        """A port of the loopback device that leads to `port` of it from now on."""
        request = {"do": "open", "host": "127.0.0.1", "port": port}
        request |= {"name": f"{mode}/between" if between else mode}
        request |= {"delay": 0.0 if between else self._delay}
        self._modes.add(mode)
        return int(self._ask(request)["port"])

    def round_trip(self, milliseconds: float) -> None:
        """Let every byte to and from the client take half of this."""
        self._delay = milliseconds / 2000
        for mode in self._modes:
            self._ask({"do": "delay", "name": mode, "delay": self._delay})

    def traffic(self, mode: str) -> Traffic:
        """What has crossed the links of a mode so far, once nothing has for a moment."""
        found, before = self._count(mode), None
        until = time.monotonic() + _PATIENCE
        while found != before and time.monotonic() < until:
            time.sleep(_STILL + 2 * self._delay)
            found, before = self._count(mode), found
        return found

    def _count(self, mode: str) -> Traffic:
        counts = self._ask({"do": "count"})
        sent, received = counts.get(mode, (0, 0))
        return Traffic(sent, received, sum(counts.get(f"{mode}/between", (0, 0))))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - pipes
        assert self._process.stdout is not None  # noqa: S101
        with self._asking:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the relay ended with status {self._process.wait(10)}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the relay, and with it every connection."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
