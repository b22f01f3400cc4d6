"""Requests to a daemon on this host: over the data plane, over control messages, and embedded."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from genie.bench.cases import case
from genie.bench.measure import seconds
from genie.bench.report import Row
from genie.bench.starting import until_listening
from genie.client import connect
from genie.client.opening import hello
from genie.client.remote import RemoteLink
from genie.client.session import Session
from genie.driver import compile_model

WARM_UP = 50
BEFORE_CALLS = "1.0"
"""The control protocol of clients that send every run over the control connection."""


@dataclass
class _Path:
    """One way of sending requests, and what it took: microseconds."""

    name: str
    session: Session
    latency: list[float] = field(default_factory=list)
    daemon: list[float] = field(default_factory=list)
    executor: list[float] = field(default_factory=list)


def calling(quick: bool) -> list[Row]:
    """Rows embedded/mlp, control/mlp and remote/mlp: p50_us, p99_us, CPU of a request.

    Blocks of requests alternate between the three, so that all see the same machine.
    `daemon_cpu_us` is CPU time of the daemon's process a request, `executor_cpu_us` that of its
    executor.
    """
    chosen = case("mlp")
    rounds, block = (6, 50) if quick else (16, 100)
    x = np.sin(np.arange(4 * 64, dtype=np.float32)).reshape(4, 64)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="genie-bench-"))
        plan = Path(folder) / "mlp.plan.json"
        compile_model(chosen.model, chosen.spec, plan)
        endpoint, process = stack.enter_context(_daemon(folder))
        greeting = hello().model_copy(update={"protocol": BEFORE_CALLS})
        paths = [
            _Path("embedded/mlp", stack.enter_context(connect(devices=["cpu"]))),
            _Path(
                "control/mlp",
                stack.enter_context(Session([(None, RemoteLink(endpoint, greeting))])),
            ),
            _Path("remote/mlp", stack.enter_context(connect(endpoint))),
        ]
        for path in paths:
            path.session.install(plan)
            for _ in range(WARM_UP):
                path.session.run({"input": x})
        for turn in range(rounds):
            for path in paths if turn % 2 == 0 else reversed(paths):
                _measure(path, x, block, process)
    return _rows(paths)


def _measure(path: _Path, x: np.ndarray, block: int, process: psutil.Process) -> None:
    before = _cpu(process)
    path.latency += [seconds(lambda: path.session.run({"input": x})) * 1e6 for _ in range(block)]
    after = _cpu(process)
    path.daemon.append((after[0] - before[0]) / block * 1e6)
    path.executor.append((after[1] - before[1]) / block * 1e6)


def _rows(paths: list[_Path]) -> list[Row]:
    embedded, control, remote = ({row.metric: row for row in _figures(p)} for p in paths)
    rows = [*control.values()]
    for found in (embedded, remote):
        for metric, row in found.items():
            if found is embedded and metric.endswith("cpu_us"):
                continue  # there is no daemon
            base = control[metric]
            ratio = row.value / base.value if base.value else None
            rows.append(Row(row.case, metric, row.value, row.unit, row.samples, base.case, ratio))
    return rows


def _figures(path: _Path) -> list[Row]:
    latency = tuple(path.latency)
    p99 = statistics.quantiles(latency, n=100)[98]
    found = [
        Row(path.name, "p50_us", statistics.median(latency), "µs", latency),
        Row(path.name, "p99_us", p99, "µs", latency),
    ]
    # Means: the kernel counts CPU time in ticks of 10 ms, so that single blocks are coarse.
    for metric, samples in (("daemon_cpu_us", path.daemon), ("executor_cpu_us", path.executor)):
        found.append(Row(path.name, metric, statistics.fmean(samples), "µs", tuple(samples)))
    return found


def _cpu(process: psutil.Process) -> tuple[float, float]:
    """CPU seconds of the daemon's process, and of its executors."""

    def spent(of: psutil.Process) -> float:
        times = of.cpu_times()
        return float(times.user + times.system)

    return spent(process), sum(spent(child) for child in process.children(recursive=True))


@contextmanager
def _daemon(folder: str) -> Iterator[tuple[str, psutil.Process]]:
    """A daemon with one CPU device of one thread: (endpoint, process)."""
    socket = Path(folder) / "d.sock"
    argv = [
        *(str(Path(sys.executable).parent / "genied"), "--listen", f"unix://{socket}"),
        *("--state-dir", f"{folder}/state", "--device", "cpu", "--threads", "1"),
    ]
    daemon = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_listening(socket, daemon)
        yield f"unix://{socket}", psutil.Process(daemon.pid)
    finally:
        daemon.terminate()
        daemon.wait(20)
