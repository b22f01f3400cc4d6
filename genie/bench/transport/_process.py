"""The measuring process's hold on a worker."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self, cast

from genie.bench.suites import Unavailable

__all__ = ["Process", "Reply"]

_PATIENCE = 180.0  # seconds for a reply
_MAX_LINE = 16 << 20


class Reply:
    """A reply that is on its way."""

    def __init__(self, process: Process, number: int) -> None:
        self._process = process
        self._number = number

    def get(self, timeout: float = _PATIENCE) -> Any:
        """Wait for it. Raises Unavailable: the worker's error, its end, or the time's."""
        return self._process._take(self._number, timeout)


class Process:
    """A worker. With `namespace` it has a network namespace of its own, which ends with it."""

    def __init__(
        self, *, namespace: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` is added to this process's. Raises Unavailable when it does not start."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        argv = [sys.executable, "-P", "-m", "genie.bench.transport._worker"]
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            argv + ["--namespace"] * namespace,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            env={**os.environ, **(environment or {})},
        )
        self._in, self._out = (
            cast(IO[bytes], self._process.stdin),
            cast(IO[bytes], self._process.stdout),
        )
        self._numbers = itertools.count()
        self._replies: dict[int, dict[str, Any]] = {}
        self._pending = b""
        try:
            self.pid = int(self.ask("pid", timeout=60.0))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, do: str, *, timeout: float = _PATIENCE, **arguments: Any) -> Any:
        """The result of a request. Raises Unavailable."""
        return self.start(do, **arguments).get(timeout)

    def start(self, do: str, **arguments: Any) -> Reply:
        """Send a request."""
        number = next(self._numbers)
        data = json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n"
        try:
            self._in.write(data)
        except OSError as error:
            raise Unavailable(self._last_words()) from error
        return Reply(self, number)

    def side(self, side: str, what: str, **arguments: Any) -> Any:
        """Call a method of an end of the worker."""
        return self.ask("do", side=side, what=what, arguments=arguments)

    def start_side(self, side: str, what: str, **arguments: Any) -> Reply:
        """The same without waiting."""
        return self.start("do", side=side, what=what, arguments=arguments)

    def close(self) -> None:
        """End it, by force when it does not within a few seconds. Idempotent."""
        for stream in (self._in, self._out):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _take(self, number: int, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while number not in self._replies:
            self._read(deadline)
        reply = self._replies.pop(number)
        if "error" in reply:
            raise Unavailable(str(reply["error"]).splitlines()[0])
        return reply["result"]

    def _read(self, deadline: float) -> None:
        ready, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Unavailable("a worker did not answer in time")
        data = os.read(self._out.fileno(), 1 << 16)
        if not data:
            raise Unavailable(self._last_words())
        self._pending += data
        if len(self._pending) > _MAX_LINE:
            raise Unavailable("a worker's answer is too long")
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            reply = json.loads(line)
            self._replies[reply["id"]] = reply

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        status = self._process.returncode
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        if status is not None and status < 0:
            return f"a worker was ended by signal {-status}"
        return lines[-1] if lines else f"a worker ended with status {status}"
