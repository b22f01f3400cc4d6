"""Genie itself: two daemons of their own, every link of theirs led through the relay.

Control (gRPC) and data listen at TCP ports of the loopback device. Each connection that a session
makes, of the client with a daemon or of one daemon with the other, is dialled through the relay,
so that the bytes of all modes are counted at one place and by one rule.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from genie.bench.semantics._wires import Wires
from genie.client.channel import Credentials
from genie.client.link import NodeLink
from genie.client.opening import hello
from genie.client.remote import RemoteLink
from genie.client.session import Session
from genie_schemas.closing import Closing

__all__ = ["Daemons"]

_START_SECONDS = 30.0


class Daemons(Closing):
    """Daemons for the plan devices d0, d1, …, one CPU device each."""

    def __init__(self, count: int, threads: int, wires: Wires) -> None:
        """Start them. Raises RuntimeError when one does not come up."""
        self._wires = wires
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="genie-bench-"))
        )
        try:
            self.ports = [self._start(f"d{number}", threads) for number in range(count)]
        except BaseException:
            self.close()
            raise

    def _start(self, name: str, threads: int) -> int:
        argv = [
            *(sys.executable, "-P", "-m", "genie_runtime.main", "--listen", "127.0.0.1:0"),
            *("--state-dir", str(self._folder / name), "--token-file", str(self._token(name))),
            *("--device", "cpu", "--threads", str(threads)),
        ]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        self._stack.callback(_stop, process)
        listening: list[int] = []
        known = threading.Event()

        def read() -> None:
            assert process.stderr is not None  # noqa: S101 - a pipe
            for line in process.stderr:  # to its end: a full pipe would stop the daemon
                if not known.is_set() and '"listening"' in line:
                    listening.append(int(json.loads(line)["endpoint"].rpartition(":")[2]))
                    known.set()
            known.set()

        threading.Thread(target=read, daemon=True).start()
        if not known.wait(_START_SECONDS) or not listening:
            raise RuntimeError(f"the daemon {name} did not start")
        return listening[0]

    def _token(self, name: str) -> Path:
        from genie_runtime.secrets_files import ensure_token

        path = self._folder / f"{name}.token"
        ensure_token(path)
        return path

    def session(self, count: int, *, counted: bool) -> Session:
        """A session with the first `count`: plan devices are bound in the plan's order.

        What is `counted` has its link between daemons in the relay as well; where time is taken,
        that link has no delay, and the relay would only slow it down.
        """
        links: list[tuple[str | None, NodeLink]] = []
        try:
            for number, port in enumerate(self.ports[:count]):
                endpoint = f"127.0.0.1:{self._wires.open(port, _mode(counted))}"
                credentials = Credentials(None, self._token(f"d{number}"))
                links.append((None, _RelayedLink(endpoint, self._wires, credentials, counted)))
        except BaseException:
            for _, link in links:
                link.close()
            raise
        return Session(links)

    def close(self) -> None:
        """End them."""
        self._stack.close()


class _RelayedLink(RemoteLink):
    """A session with a daemon whose data connections are dialled through the relay as well."""

    def __init__(
        self, endpoint: str, wires: Wires, credentials: Credentials, counted: bool
    ) -> None:
        self._wires = wires
        self._counted = counted
        self._between = False
        super().__init__(endpoint, hello(), credentials)

    def _connect(self) -> None:
        self._between = False
        super()._connect()
        self._between = True  # whatever is dialled from now on, a daemon dials

    def _reachable(self, endpoint: str) -> str:
        direct = super()._reachable(endpoint)
        if self._between and not self._counted:
            return direct
        port = int(direct.rpartition(":")[2])
        return (
            f"tcp://127.0.0.1:{self._wires.open(port, _mode(self._counted), between=self._between)}"
        )


def _mode(counted: bool) -> str:
    """Heartbeats of a session that times are no traffic of the one that is counted."""
    return "genie" if counted else "timed"


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    if process.stderr is not None:
        process.stderr.close()
