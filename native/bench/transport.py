"""Throughput and latency of the native paths against memcpy and iperf3, in the same run.

    python native/bench/transport.py [--rounds 5] [--paths shm,tcp,tcp-aead,unix] [--json]

The peer is a process of its own. The cases take turns; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from genie_transport import DMAHandle, Listener, TransferManager, _core, connect

SIZE = 64 << 20
SMALL = 64


def serve(endpoint: str, path: str, key: str, encrypt: str) -> None:
    """The peer: registers what it is asked for, and answers pings."""
    manager = connect(endpoint, "bench", bytes.fromhex(key), path=path, encrypt=encrypt == "1")
    buffers: list[Any] = []
    here = manager.register(bytearray(SMALL))
    for line in sys.stdin:
        words = line.split()
        if words[0] == "sink":
            buffers.append(np.ones(int(words[1]), dtype=np.uint8))
            print(json.dumps(manager.register(buffers[-1]).to_json()), flush=True)
        elif words[0] == "pong":
            there = DMAHandle.from_json(json.loads(" ".join(words[2:])))
            trips(manager, manager.register(bytes(there.length)), there, here, int(words[1]))
        elif words[0] == "here":
            here = manager.register(bytearray(SMALL))
            print(json.dumps(here.to_json()), flush=True)


def trips(
    manager: TransferManager,
    src: DMAHandle,
    there: DMAHandle,
    here: DMAHandle,
    count: int,
    *,
    first: bool = False,
) -> list[int]:
    """Nanoseconds of round trips between two processes, in native code."""
    transport: Any = getattr(manager._transport, "chosen", None) or manager._transport
    return transport.ping(manager._regions[src.key], there, here, count, first=first)


class Case:
    """One path to a peer process."""

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        path, _, sealed = name.partition("-")
        where = f"unix://{folder}/{name}" if path in ("shm", "unix") else "tcp://127.0.0.1:0"
        key = secrets.token_bytes(32)
        with Listener.open(where) as listener:
            self.manager: TransferManager = listener.expect(
                "bench", key, path=path, encrypt=sealed == "aead"
            )
            arguments = [listener.endpoint, path, key.hex(), "1" if sealed == "aead" else "0"]
            self.peer = subprocess.Popen(
                [sys.executable, __file__, "--serve", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self.manager.wait_connected(30)
        source: Any = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
        if name == "shm-arena":
            arena = _core.Arena(SIZE)
            in_arena = np.asarray(arena.view)
            in_arena[:] = source
            source = in_arena
            transport: Any = self.manager._transport
            assert transport.chosen.share(arena)
        self.src = self.manager.register(source)
        self.dst = self.ask(f"sink {SIZE}")
        self.post()

    def ask(self, line: str) -> DMAHandle:
        assert self.peer.stdin
        assert self.peer.stdout
        self.peer.stdin.write(line + "\n")
        self.peer.stdin.flush()
        return DMAHandle.from_json(json.loads(self.peer.stdout.readline()))

    def post(self) -> float:
        """GB/s of one 64 MiB transfer."""
        begin = time.perf_counter()
        self.manager.post(self.src, self.dst).result(60)
        return SIZE / (time.perf_counter() - begin) / 1e9

    def round_trip(self, count: int) -> list[float]:
        """µs of each of `count` round trips of 64 bytes, in native code on both sides."""
        here = self.manager.register(bytearray(SMALL))
        src = self.manager.register(bytes(SMALL))
        there = self.ask("here")
        assert self.peer.stdin
        self.peer.stdin.write(f"pong {count} {json.dumps(here.to_json())}\n")
        self.peer.stdin.flush()
        return [ns / 1e3 for ns in trips(self.manager, src, there, here, count, first=True)]

    def overhead(self, count: int) -> float:
        """µs of Python's thread for each small transfer: submit and complete, many at a time."""
        src = self.manager.register(bytes(SMALL))
        dst = self.ask(f"sink {SMALL * 64}")
        parts = [dst.part(SMALL * i, SMALL) for i in range(64)]
        begin = time.perf_counter()
        for _ in range(count // 64):
            futures = [self.manager.post(src, part) for part in parts]
            for future in futures:
                future.result(10)
        return (time.perf_counter() - begin) / count * 1e6

    def close(self) -> None:
        self.manager.close()
        self.peer.kill()
        self.peer.wait()


def memcpy(src: np.ndarray, dst: np.ndarray) -> float:
    begin = time.perf_counter()
    np.copyto(dst, src)
    return src.nbytes / (time.perf_counter() - begin) / 1e9


def iperf3() -> float:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    server = subprocess.Popen(
        ["iperf3", "-s", "-1", "-p", port, "-B", "127.0.0.1"], stdout=subprocess.DEVNULL
    )
    time.sleep(0.3)
    done = subprocess.run(
        ["iperf3", "-c", "127.0.0.1", "-p", port, "-t", "1", "-J"],
        capture_output=True,
        text=True,
    )
    server.wait(5)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 8e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paths", default="shm,shm-arena,tcp,tcp-aead")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    src = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    dst = np.ones_like(src)
    with tempfile.TemporaryDirectory() as folder:
        cases = [Case(name, folder) for name in options.paths.split(",")]
        for _ in range(options.rounds):
            note("memcpy", statistics.median(memcpy(src, dst) for _ in range(3)))
            if shutil.which("iperf3"):
                note("iperf3", iperf3())
            for case in cases:
                note(f"{case.name}/64MiB", statistics.median(case.post() for _ in range(5)))
                note(f"{case.name}/64B rtt p50 µs", statistics.median(case.round_trip(2000)))
                note(f"{case.name}/python µs", case.overhead(6400))
        for case in cases:
            case.close()
    medians = {name: statistics.median(values) for name, values in found.items()}
    if options.json:
        print(json.dumps(medians, indent=2))
        return
    for name, value in medians.items():
        base = "memcpy" if name.startswith(("shm", "unix")) else "iperf3"
        ratio = f"  {value / medians[base]:.2f} × {base}" if name.endswith("/64MiB") else ""
        spread = f"[{min(found[name]):.2f} … {max(found[name]):.2f}]"
        print(f"{name:28} {value:8.2f} {spread:>18}{ratio}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
