"""A remote-operator server: one device, one client, operators by exact overload on kept tensors.

This is the other side of the baselines of `genie bench semantics`. It knows operators and slots
and nothing of models: what a semantically blind remoting system has. It runs as a process of its
own, `python -m genie.bench.semantics._server THREADS`, reads its key as a line of hex digits from
standard input, writes the port that it listens at to standard output, serves the first client
that knows the key, and ends with that connection.
"""

from __future__ import annotations

import hmac
import io
import socket
import sys
from dataclasses import dataclass

import torch

from genie.bench.semantics import _messages as wire
from genie.bench.semantics._messages import Kind, Malformed
from genie_runtime.executors.bound import Bound, OperatorFailed
from genie_runtime.executors.slots import compile_program
from genie_schemas import args, canonical
from genie_schemas.closing import Closing
from genie_schemas.errors import GenieError
from genie_schemas.plan import Op, Program, ProgramValue

__all__ = ["Server", "defined", "listen", "main"]

_ACCEPT_SECONDS = 60.0
_KINDS = frozenset(Kind)
_DEVICE = torch.device("cpu")


@dataclass(frozen=True)
class _Call:
    """A defined call: its operator with the arguments bound, and how many slots it names."""

    bound: Bound
    inputs: int
    outputs: int


class Server(Closing):
    """Serves one connection. Peers are not trusted: what does not fit is refused, then ended."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._stream = io.BufferedReader(socket.SocketIO(connection, "r"), 1 << 16)
        self._calls: dict[int, _Call] = {}
        self._slots: dict[int, torch.Tensor] = {}

    def admit(self, key: bytes) -> bool:
        """Whether the peer knows the key."""
        try:
            opening = self._read(len(wire.MAGIC) + wire.KEY_BYTES)
        except EOFError:
            return False
        return hmac.compare_digest(opening, wire.MAGIC + key)

    def run(self) -> None:
        """Serve until the client ends; an error is told to it and ends the connection."""
        handlers = {
            Kind.DEFINE: self._define,
            Kind.CALL: self._call,
            Kind.STORE: self._store,
            Kind.DROP: self._drop,
            Kind.FETCH: self._fetch,
        }
        try:
            while first := self._stream.read(1):
                handler = handlers.get(Kind(first[0])) if first[0] in _KINDS else None
                if handler is None:
                    raise Malformed(f"{first[0]} is no message that a server takes")
                handler()
        except (Malformed, GenieError, OperatorFailed) as error:
            cause = error.error if isinstance(error, OperatorFailed) else error
            text = f"{type(cause).__name__}: {cause}".encode()[:1000]
            self._socket.sendall(bytes([Kind.FAILED]) + wire.TEXT.pack(len(text)) + text)
        except (EOFError, ConnectionError):
            pass  # the client ended in the middle of something: nobody is left to be told

    def close(self) -> None:
        """Let go of the connection, which stays the caller's, and of every tensor."""
        self._stream.close()
        self._slots.clear()

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise EOFError
        return data

    # -- messages ---------------------------------------------------------------------------

    def _define(self) -> None:
        number, length = wire.DEFINE.unpack(self._read(wire.DEFINE.size))
        if length > wire.MAX_DEFINITION:
            raise Malformed(f"a definition of {length} bytes")
        if number in self._calls:
            raise Malformed(f"call {number} is defined already")
        self._calls[number] = defined(self._read(length))

    def _call(self) -> None:
        (number,) = wire.CALL.unpack(self._read(wire.CALL.size))
        call = self._calls.get(number)
        if call is None:
            raise Malformed(f"call {number} is not defined")
        layout = wire.slots(call.inputs + call.outputs)
        named = layout.unpack(self._read(layout.size))
        inputs = [self._kept(slot) for slot in named[: call.inputs]]
        outputs = call.bound.run(inputs)
        for slot, tensor in zip(named[call.inputs :], outputs, strict=True):
            self._slots[slot] = tensor

    def _store(self) -> None:
        slot = self._slot()
        tensor, place = wire.room(wire.read_header(self._read))
        while place:
            count = self._stream.readinto(place)
            if not count:
                raise EOFError
            place = place[count:]
        self._slots[slot] = tensor

    def _drop(self) -> None:
        slot = self._slot()
        self._kept(slot)
        del self._slots[slot]

    def _fetch(self) -> None:
        header, data = wire.dense(self._kept(self._slot()))
        self._socket.sendall(bytes([Kind.VALUE]) + header.pack())
        self._socket.sendall(data)

    # -- tensors ----------------------------------------------------------------------------

    def _slot(self) -> int:
        (slot,) = wire.slots(1).unpack(self._read(wire.slots(1).size))
        return int(slot)

    def _kept(self, slot: int) -> torch.Tensor:
        tensor = self._slots.get(slot)
        if tensor is None:
            raise Malformed(f"slot {slot} is empty")
        return tensor


def defined(text: bytes) -> _Call:
    """A call as a program of one op, which the plan's own executor compiles and checks."""
    try:
        op = Op.model_validate(canonical.loads(text.decode()))
        values = [args.decode(item) for item in (*op.args, *op.kwargs.values())]
    except ValueError as error:  # pydantic's, the decoders', and JSON's
        raise Malformed(f"a definition cannot be read: {str(error)[:200]}") from None
    used = {
        leaf.name for value in values for leaf in args.walk(value) if isinstance(leaf, args.Ref)
    }
    inputs = [f"i{number}" for number in range(len(used))]
    outputs = [name for name in op.out if name is not None]
    if used != set(inputs) or outputs != [f"o{number}" for number in range(len(outputs))]:
        raise Malformed("a definition names its values otherwise than i0, i1, … and o0, o1, …")
    program = Program(
        # Their types are the verifier's business, and depend on what is in the slots.
        inputs=[ProgramValue(name=name, type="f32[]") for name in inputs],
        outputs=[ProgramValue(name=name, type="f32[]") for name in outputs],
        scratch_bytes="0",
        ops=[op],
    )
    return _Call(compile_program(program, _DEVICE).bind({}), len(inputs), len(outputs))


def listen(host: str = "127.0.0.1") -> socket.socket:
    """A listening socket at a port that is free."""
    found = socket.create_server((host, 0), backlog=4)
    found.settimeout(_ACCEPT_SECONDS)
    return found


def main(argv: list[str]) -> int:
    """Serve one client. Returns the exit status: 1 when nobody with the key came in time."""
    torch.set_num_threads(int(argv[0]))
    key = bytes.fromhex(sys.stdin.readline())
    with listen() as listening:
        sys.stdout.write(f"{listening.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                return 1
            with connection, Server(connection) as server:
                connection.settimeout(_ACCEPT_SECONDS)
                if not server.admit(key):
                    continue
                connection.settimeout(None)
                with torch.inference_mode():
                    server.run()
                return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
