"""What a user would otherwise pick: gRPC, ZeroMQ, gloo and Ray, as ends of the same shape.

Each is used as its documentation shows, over the loopback device, with a burst under way at once
and an answer when everything has arrived. All but gRPC are optional; the imports stand where they
are used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from genie.bench.transport._sides import SMALL, Bytes, Side, digest, fill

__all__ = ["LIBRARIES", "missing", "open_library"]

_PATIENCE = 120.0  # seconds


class _LibrarySide(ABC):
    """What the libraries' ends have in common; see Side."""

    def __init__(self) -> None:
        self._bytes: Bytes = np.zeros(0, dtype=np.uint8)

    def source(self, size: int) -> str:
        if len(self._bytes) != size:
            self._bytes = fill(size)
        else:
            np.bitwise_xor(self._bytes, np.uint8(0xA5), out=self._bytes)
        self._changed()
        return digest(self._bytes)

    def _changed(self) -> None:
        """The source has other bytes now, which some libraries take another copy of."""
        return

    def sink(self, size: int, burst: int) -> Any:
        return None

    def send(self, there: Any, burst: int, times: int) -> list[float]:
        seconds = []
        for _ in range(times):
            begin = time.perf_counter()
            self._burst(burst)
            seconds.append(time.perf_counter() - begin)
        return seconds

    @abstractmethod
    def _burst(self, burst: int) -> None:
        """Send `burst` messages at once, and wait until all have arrived."""

    def receive(self, burst: int, times: int) -> None:
        """Nothing to do, with the libraries that receive by themselves."""
        return

    def free(self) -> None:
        self._bytes = np.zeros(0, dtype=np.uint8)

    def mailbox(self) -> Any:
        return None

    def ping(
        self, there: Any, count: int, first: bool, pause: float = 0.0
    ) -> list[tuple[int, int]]:
        trips = []
        for _ in range(count):
            if first and pause:
                time.sleep(pause)
            begin = time.perf_counter_ns()
            self._trip(first)
            trips.append((begin, time.perf_counter_ns()))
        return trips

    @abstractmethod
    def _trip(self, first: bool) -> None:
        """One round trip of a small message, on either side."""


class _Grpc(_LibrarySide):
    """A unary call with the bytes as its request."""

    def __init__(self, first: bool, folder: Path) -> None:
        super().__init__()
        import grpc

        sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._first = first
        self._last = b""
        note = folder / "grpc"
        if first:
            address = _read(note)
            self._channel = grpc.insecure_channel(address, options=sizes)
            self._call = self._channel.unary_unary("/bench/Put", None, None)
            return

        def put(request: bytes, context: grpc.ServicerContext) -> bytes:
            self._last = request
            return b""

        self._server = grpc.server(ThreadPoolExecutor(2), options=sizes)
        handler = grpc.unary_unary_rpc_method_handler(put)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("bench", {"Put": handler}),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        _write(note, f"127.0.0.1:{port}")

    def _changed(self) -> None:
        self._request = self._bytes.tobytes()

    def _burst(self, burst: int) -> None:
        for call in [self._call.future(self._request) for _ in range(burst)]:
            call.result(_PATIENCE)

    def _trip(self, first: bool) -> None:
        if first:
            self._call(bytes(SMALL), timeout=_PATIENCE)

    def digests(self) -> list[str]:
        return [digest(self._last)]

    def free(self) -> None:
        super().free()
        self._request = self._last = b""

    def close(self) -> None:
        if self._first:
            self._channel.close()
        else:
            self._server.stop(None)


class _Zmq(_LibrarySide):
    """A PAIR of sockets over tcp; the receiver answers each burst."""

    def __init__(self, first: bool, folder: Path) -> None:
        super().__init__()
        zmq: Any = import_module("zmq")
        self._context = zmq.Context()
        self._socket: Any = self._context.socket(zmq.PAIR)
        for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
            self._socket.setsockopt(option, int(_PATIENCE * 1e3))
        self._socket.setsockopt(zmq.LINGER, 0)
        self._last: Any = b""
        note = folder / "zmq"
        if first:
            self._socket.connect(_read(note))
        else:
            port = self._socket.bind_to_random_port("tcp://127.0.0.1")
            _write(note, f"tcp://127.0.0.1:{port}")

    def _burst(self, burst: int) -> None:
        for _ in range(burst):
            self._socket.send(self._bytes, copy=False)
        self._socket.recv()

    def receive(self, burst: int, times: int) -> None:
        for _ in range(times):
            for _ in range(burst):
                self._last = self._socket.recv(copy=False)
            self._socket.send(b"")

    def _trip(self, first: bool) -> None:
        if first:
            self._socket.send(bytes(SMALL))
        self._socket.recv()
        if not first:
            self._socket.send(bytes(SMALL))

    def digests(self) -> list[str]:
        return [digest(self._last.buffer)]

    def free(self) -> None:
        super().free()
        self._last = b""

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class _Gloo(_LibrarySide):
    """torch.distributed with the gloo backend: isend and irecv, and an answer."""

    def __init__(self, first: bool, folder: Path) -> None:
        super().__init__()
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch: Any = import_module("torch")
        dist: Any = import_module("torch.distributed")
        self._torch, self._dist = torch, dist
        torch.set_num_threads(1)
        self._peer = 1 if first else 0
        where = f"file://{folder}/gloo"
        dist.init_process_group("gloo", init_method=where, rank=1 - self._peer, world_size=2)
        self._room: list[Any] = []
        self._note = torch.zeros(1, dtype=torch.uint8)
        self._small = torch.zeros(SMALL, dtype=torch.uint8)

    def sink(self, size: int, burst: int) -> Any:
        if len(self._room) != burst or self._room[0].numel() != size:
            self._room = [self._torch.zeros(size, dtype=self._torch.uint8) for _ in range(burst)]
        return None

    def _burst(self, burst: int) -> None:
        message = self._torch.from_numpy(self._bytes)
        for work in [self._dist.isend(message, self._peer) for _ in range(burst)]:
            work.wait()
        self._dist.recv(self._note, self._peer)

    def receive(self, burst: int, times: int) -> None:
        for _ in range(times):
            for work in [self._dist.irecv(room, self._peer) for room in self._room]:
                work.wait()
            self._dist.send(self._note, self._peer)

    def _trip(self, first: bool) -> None:
        if first:
            self._dist.send(self._small, self._peer)
        self._dist.recv(self._small, self._peer)
        if not first:
            self._dist.send(self._small, self._peer)

    def digests(self) -> list[str]:
        return sorted({digest(room.numpy()) for room in self._room})

    def free(self) -> None:
        super().free()
        self._room = []

    def close(self) -> None:
        self._dist.destroy_process_group()


class _Ray(_LibrarySide):
    """`put` into the object store, and an actor that reads it; the driver is this process."""

    def __init__(self, first: bool, folder: Path) -> None:
        super().__init__()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray: Any = import_module("ray")
        self._ray = ray
        # Ray's processes end with the thread that started them: this one stays.
        self._starter = ThreadPoolExecutor(1)
        self._starter.submit(
            ray.init,
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=2 << 30,
        ).result(60.0)

        class Receiver:
            def take(self, array: Any) -> int:
                self.last = array
                return int(array.nbytes)

            def digest(self) -> str:
                from blake3 import blake3

                return blake3(memoryview(self.last)).hexdigest()

        self._actor: Any = ray.remote(Receiver).remote()

    def _burst(self, burst: int) -> None:
        take = self._actor.take
        self._ray.get([take.remote(self._ray.put(self._bytes)) for _ in range(burst)])

    def _trip(self, first: bool) -> None:
        self._ray.get(self._actor.take.remote(np.zeros(SMALL, dtype=np.uint8)))

    def digests(self) -> list[str]:
        return [self._ray.get(self._actor.digest.remote())]

    def close(self) -> None:
        self._ray.shutdown()
        self._starter.shutdown()


LIBRARIES: dict[str, tuple[str, str, Callable[[bool, Path], Side]]] = {
    "grpc": ("grpc", "grpcio", _Grpc),
    "zeromq": ("zmq", "pyzmq", _Zmq),
    "gloo": ("torch.distributed", "torch", _Gloo),
    "ray": ("ray", "ray", _Ray),
}
"""Name → (module, distribution, class)."""

ONE_PROCESS = ("ray",)
"""Libraries whose receiver is started by the sender."""


def missing(name: str) -> str | None:
    """Why a library cannot be measured here, or None."""
    module, distribution, _ = LIBRARIES[name]
    found = None
    with contextlib.suppress(ImportError):
        found = find_spec(module.partition(".")[0])
    return None if found else f"not installed: pip install {distribution}"


def open_library(name: str, *, first: bool, folder: str) -> Side:
    """One end; the `first` one sends. The other end writes where it listens into `folder`."""
    return LIBRARIES[name][2](first, Path(folder))


def _write(note: Path, text: str) -> None:
    """So that a reader sees all of it or nothing."""
    part = note.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.rename(note)


def _read(note: Path) -> str:
    waiting = threading.Event()
    deadline = time.monotonic() + 30.0
    while not note.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("the other side does not listen")
        waiting.wait(0.01)
    return note.read_text(encoding="utf-8")
