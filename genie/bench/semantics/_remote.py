"""A client's hold on a remote-operator server: messages out, tensors back, bytes counted."""

from __future__ import annotations

import contextlib
import io
import secrets
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from genie.bench.semantics import _messages as wire
from genie.bench.semantics._messages import Kind, Malformed
from genie_schemas.closing import Closing

__all__ = ["Remote", "RemoteFailed", "ServerProcess"]

_BATCH = 1 << 10
"""Bytes that are sent together: some hundred calls, while the server makes those before them."""

_PATIENCE = 120.0
"""Seconds to wait for an answer."""


class RemoteFailed(RuntimeError):
    """The server refused a message or an operator failed; the connection has ended."""


@dataclass
class Sent:
    """What calls cost on the wire: their number, and their bytes."""

    operations: int = 0
    bytes: int = 0


class ServerProcess(Closing):
    """A server in a process of its own, listening at `port` of the loopback device."""

    def __init__(self, threads: int) -> None:
        """Start it. Raises RuntimeError when it does not come up."""
        argv = [sys.executable, "-P", "-m", "genie.bench.semantics._server", str(threads)]
        self.key = secrets.token_bytes(wire.KEY_BYTES)
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None  # noqa: S101 - pipes
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(self.key.hex() + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline().strip()
        except BrokenPipeError:
            line = ""
        if not line.isdigit():
            self.close()
            raise RuntimeError("the remote-operator server did not start")
        self.port = int(line)

    def close(self) -> None:
        """End it; it ends by itself once its client is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process.poll() is None:
                self._process.wait(1.0)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Remote(Closing):
    """One connection. What needs no answer is collected and sent in batches.

    A slot is this side's to give: `take` finds one that is free, the one freed last first, so that
    what the server still has in it goes soon. `drop` costs nothing on the wire.
    """

    def __init__(self, port: int, key: bytes) -> None:
        """Connect at a port of the loopback device and prove the key."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = io.BufferedReader(socket.SocketIO(self._socket, "r"), 1 << 16)
        self._socket.sendall(wire.MAGIC + key)
        self._batch = bytearray()
        self._defined: dict[str, int] = {}
        self._free: list[int] = []
        self._slots = 0
        self.sent = Sent()

    # -- slots ------------------------------------------------------------------------------

    @property
    def kept(self) -> int:
        """How many slots are in use."""
        return self._slots - len(self._free)

    def take(self) -> int:
        """A slot that nobody uses."""
        if self._free:
            return self._free.pop()
        self._slots += 1
        return self._slots - 1

    def drop(self, slot: int) -> None:
        """Nobody needs the tensor in this slot any more; the next one takes its place."""
        self._free.append(slot)

    def release(self, slot: int) -> None:
        """The same at once, for what is large: the server drops it now."""
        self._send(bytes([Kind.DROP]) + wire.slots(1).pack(slot))
        self.drop(slot)

    # -- messages ---------------------------------------------------------------------------

    def define(self, text: str) -> int:
        """The number of a call (see `_messages`); sent when it is new."""
        number = self._defined.get(text)
        if number is None:
            number = self._defined[text] = len(self._defined)
            data = text.encode()
            self._send(bytes([Kind.DEFINE]) + wire.DEFINE.pack(number, len(data)) + data)
        return number

    def call(self, number: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Make a defined call on slots."""
        named = (*inputs, *outputs)
        message = bytes([Kind.CALL]) + wire.CALL.pack(number) + wire.slots(len(named)).pack(*named)
        self._send(message)
        self.sent.operations += 1
        self.sent.bytes += len(message)

    def store(self, slot: int, tensor: torch.Tensor) -> None:
        """Put a tensor into a slot."""
        header, data = wire.dense(tensor)
        self._send(bytes([Kind.STORE]) + wire.slots(1).pack(slot) + header.pack())
        if len(data) < _BATCH:
            self._send(data)
        else:
            self.flush()
            self._pass(data)

    def ask(self, slot: int) -> None:
        """Have a tensor sent; `answer` gives those that were asked for in this order."""
        self._send(bytes([Kind.FETCH]) + wire.slots(1).pack(slot))

    def answer(self) -> torch.Tensor:
        """The next tensor asked for. Raises RemoteFailed with what the server says."""
        self.flush()
        kind = self._read(1)[0]
        if kind == Kind.FAILED:
            (length,) = wire.TEXT.unpack(self._read(wire.TEXT.size))
            raise RemoteFailed(self._read(length).decode("utf-8", "replace"))
        if kind != Kind.VALUE:
            raise Malformed(f"{kind} is no message that a client takes")
        tensor, place = wire.room(wire.read_header(self._read))
        while place:
            count = self._stream.readinto(place)
            if not count:
                raise EOFError
            place = place[count:]
        return tensor

    def flush(self) -> None:
        """Send what was collected."""
        if self._batch:
            batch, self._batch = self._batch, bytearray()
            self._pass(batch)

    def _send(self, data: bytes | memoryview) -> None:
        self._batch += data
        if len(self._batch) >= _BATCH:
            self.flush()

    def _pass(self, data: bytearray | memoryview) -> None:
        try:
            self._socket.sendall(data)
        except ConnectionError:
            self.answer()  # why the server ended
            raise

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise EOFError("the server ended the connection")
        return data

    def close(self) -> None:
        """End the connection; the server ends with it."""
        self._stream.close()
        self._socket.close()
