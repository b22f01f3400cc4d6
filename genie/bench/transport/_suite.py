"""The suite itself: who takes part, and in what order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from genie.bench.report import LeftOut, Row
from genie.bench.suites import Unavailable
from genie.bench.transport import _dpdk as dpdk
from genie.bench.transport import _faults
from genie.bench.transport import _probes as probes
from genie.bench.transport._faults import Condition
from genie.bench.transport._load import MIB, Contender, load_of
from genie.bench.transport._neighbours import slow_consumer
from genie.bench.transport._paths import Ends, library, over_sockets, within
from genie.bench.transport._rounds import Versus, round_trips, throughput
from genie.bench.transport._standalone import Iperf3, Memcpy, UcxPerftest

__all__ = ["FULL", "QUICK", "Scope", "measure", "transport"]


@dataclass(frozen=True)
class Scope:
    """How much is measured; sizes in bytes."""

    sizes: tuple[int, ...]
    rounds: int
    trips: int
    cold: int
    idle_rounds: int
    conditions: tuple[Condition, ...] = ()
    only: tuple[str, ...] | None = None  # names of contenders; None: all


QUICK = Scope(
    (64, MIB, 64 * MIB), rounds=5, trips=1000, cold=20, idle_rounds=1, conditions=_faults.QUICK
)
FULL = Scope(
    (64, 1 << 10, 16 << 10, 256 << 10, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB),
    rounds=7,
    trips=5000,
    cold=50,
    idle_rounds=3,
    conditions=_faults.FULL,
)

_SLOW_TRIPS = {"ray": 10, "grpc": 4}
"""Contenders whose round trips take so long that a fraction of them is measured."""


def transport(quick: bool) -> Iterable[Row | LeftOut]:
    """Every row of the suite. What this machine cannot measure is left out with the reason."""
    return measure(QUICK if quick else FULL)


def measure(scope: Scope) -> Iterable[Row | LeftOut]:
    """The suite within `scope`."""
    with ExitStack() as stack:
        found = _Field(stack, scope.only)
        yield from found.enter()
        loads = [load_of(size) for size in scope.sizes]
        yield from throughput(found.contenders, loads, scope.rounds, _progress)
        _progress("round trips")
        yield from round_trips(
            found.contenders,
            scope.rounds,
            lambda name: max(50, scope.trips // _SLOW_TRIPS.get(name, 1)),
        )
        ours = [v.contender for v in found.contenders if isinstance(v.contender, Ends)]
        _progress("waking up")
        yield from probes.cold(
            [end for end in ours if end.name in _GENIE], scope.cold, min(5, scope.rounds)
        )
        shm = next((end for end in ours if end.name == "shm"), None)
        if shm is not None:
            yield probes.overhead(shm, scope.rounds)
    if scope.conditions:
        yield from _faults.goodput(scope.conditions, 64 * MIB, min(5, scope.rounds), _progress)
        _progress("a slow consumer")
        yield from slow_consumer(10 * scope.trips, scope.rounds)
    if scope.only is None or "daemon" in scope.only:
        _progress("idle daemon")
        for case, probe in (
            ("daemon/idle", probes.idle),
            ("daemon/idle-dpdk", probes.idle_with_port),
        ):
            try:
                yield probe(case, scope.idle_rounds)
            except Unavailable as reason:
                yield LeftOut(case, str(reason))


def _progress(what: str) -> None:
    print(f"  {what} …", file=sys.stderr, flush=True)  # noqa: T201


_GENIE = {
    "loopback": ("memcpy", ()),
    "shm": ("memcpy", ("ucx_perftest-shm", "gloo", "grpc", "zeromq", "ray")),
    "shm-arena": ("memcpy", ("ucx_perftest-shm",)),
    "tcp": ("iperf3", ("ucx_perftest-tcp", "gloo", "grpc", "zeromq")),
    "tcp-aead": ("iperf3", ("tcp", "grpc")),
    "unix": ("memcpy", ()),
    "ucx": ("ucx_perftest-shm", ("memcpy",)),
    "ucx-tcp": ("ucx_perftest-tcp", ("iperf3",)),
    "dpdk-ring": ("memcpy", ()),
    "dpdk-ring-aead": ("dpdk-ring", ()),
    "dpdk-memif": ("memcpy", ("iperf3", "ucx_perftest-shm")),
    "dpdk-memif-aead": ("dpdk-memif", ()),
    "dpdk-af_packet": ("iperf3-veth", ()),
    "dpdk-af_packet-aead": ("dpdk-af_packet", ()),
    "dpdk-af_packet-64k": ("iperf3-veth", ()),
    "dpdk-af_packet-64k-aead": ("dpdk-af_packet-64k", ()),
    "dpdk-af_xdp": ("iperf3-veth", ()),
    "dpdk-af_xdp-aead": ("dpdk-af_xdp", ()),
}
"""Genie's paths: what each is compared with, and what else it is set beside."""

_SOCKETS: dict[str, Callable[[], Contender]] = {
    "memcpy": Memcpy,
    "iperf3": Iperf3,
    "ucx_perftest-shm": lambda: UcxPerftest("ucx_perftest-shm", "posix,cma,self"),
    "ucx_perftest-tcp": lambda: UcxPerftest("ucx_perftest-tcp", "tcp,self"),
    "loopback": lambda: within("loopback", "loopback"),
    "shm": lambda: over_sockets("shm", "shm"),
    "shm-arena": lambda: over_sockets("shm-arena", "shm", arena=True),
    "tcp": lambda: over_sockets("tcp", "tcp"),
    "tcp-aead": lambda: over_sockets("tcp-aead", "tcp", encrypt=True),
    "unix": lambda: over_sockets("unix", "unix"),
    "ucx": lambda: over_sockets("ucx", "ucx"),
    "ucx-tcp": lambda: over_sockets("ucx-tcp", "ucx", tls="tcp"),
    "grpc": lambda: library("grpc"),
    "zeromq": lambda: library("zeromq"),
    "gloo": lambda: library("gloo"),
    "ray": lambda: library("ray"),
}

_PORTS: dict[str, Callable[[ExitStack], dpdk.Ports]] = {
    "dpdk-ring": dpdk.ring,
    "dpdk-memif": dpdk.memif,
    "dpdk-af_packet": dpdk.af_packet,
    "dpdk-af_packet-64k": lambda stack: dpdk.af_packet(stack, 64000),
    "dpdk-af_xdp": dpdk.af_xdp,
}


class _Field:
    """Who takes part."""

    def __init__(self, stack: ExitStack, only: tuple[str, ...] | None) -> None:
        self._stack = stack
        self._only = only
        self.contenders: list[Versus] = []

    def enter(self) -> Iterable[LeftOut]:
        """Open them all; who cannot be opened is left out."""
        for name, make in _SOCKETS.items():
            if self._wanted(name):
                try:
                    self._add(make())
                except Unavailable as reason:
                    yield LeftOut(name, str(reason))
        if self._wanted("iperf3-veth"):
            try:
                self._add(dpdk.iperf3_veth(self._stack)())
            except Unavailable as reason:
                yield LeftOut("iperf3-veth", str(reason))
        for name, open_ports in _PORTS.items():
            if self._wanted(name):
                yield from self._ports(name, open_ports)

    def _ports(self, name: str, open_ports: Callable[[ExitStack], dpdk.Ports]) -> Iterable[LeftOut]:
        with ExitStack() as attempt:
            try:
                ports = open_ports(attempt)
                for sealed in (False, True):
                    self._add(ports.session(name + "-aead" * sealed, sealed=sealed))
            except Unavailable as reason:
                yield LeftOut(name, str(reason))
            else:
                self._stack.push(attempt.pop_all())

    def _wanted(self, name: str) -> bool:
        return self._only is None or name in self._only

    def _add(self, contender: Contender) -> None:
        self._stack.callback(contender.close)
        self.contenders.append(Versus(contender, *_GENIE.get(contender.name, (None, ()))))
