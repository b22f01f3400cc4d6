"""What is not throughput: idle daemons, waking up, and what Python costs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import psutil

from genie.bench.report import LeftOut, Row, median_row
from genie.bench.starting import until_listening
from genie.bench.suites import Unavailable
from genie.bench.transport._network import Cable, namespaces
from genie.bench.transport._paths import Ends
from genie.bench.transport._process import Process

__all__ = ["cold", "idle", "idle_with_port", "overhead"]

_PAUSE = 0.02  # seconds of idleness before each cold transfer: every spinning has ended by then
_IDLE_SECONDS = 5.0
_SETTLING = 30.0  # seconds at most
_STARTING = 30.0  # per cent of a core: importing takes all of one


def cold(paths: Sequence[Ends], count: int, rounds: int) -> Iterable[Row | LeftOut]:
    """Rows <path>/64B after idleness of both ends.

    wake_p50_us: from post until the receiver, which slept, has the message, both in native code as
    in a round trip. cold_p50_us: what Python sees, from post() until the sender knows.
    """
    for path in paths:
        try:
            for metric, probe in (("wake_p50_us", path.wake), ("cold_p50_us", path.cold)):
                samples = [median(probe(count, _PAUSE)) for _ in range(rounds)]
                yield median_row(f"{path.name}/64B", metric, "µs", samples)
        except Unavailable as reason:
            yield LeftOut(f"{path.name}/64B cold", str(reason))


def overhead(path: Ends, rounds: int) -> Row:
    """Row python/submit+complete, overhead_us: wall time of a 64-byte transfer, 64 at a time."""
    path.overhead(640)
    samples = [path.overhead(12_800) for _ in range(rounds)]
    return median_row("python/submit+complete", "overhead_us", "µs", samples)


def idle(case: str, rounds: int, options: Sequence[str] = (), inside: Process | None = None) -> Row:
    """Row `case`, cpu_percent: a daemon with a session open and nothing to do, 5 s a sample.

    `inside` is a worker in whose network namespace it runs. Counts the daemon and its children.
    Raises Unavailable when the daemon does not start.
    """
    from genie.client import connect
    from genie_schemas.errors import GenieError

    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder, _log() as log:
        endpoint = f"unix://{folder}/d.sock"
        argv = ["nsenter", f"--net=/proc/{inside.pid}/ns/net", "--"] if inside else []
        argv += [str(Path(sys.executable).parent / "genied"), "--listen", endpoint]
        argv += ["--state-dir", f"{folder}/state", *options]
        try:
            daemon = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=log)
        except OSError as error:
            raise Unavailable(f"{argv[0]}: {error.strerror}") from error
        try:
            _wait_for(Path(f"{folder}/d.sock"), daemon, log)
            try:
                session = connect(endpoint)
            except GenieError as error:
                raise Unavailable(f"no session with the daemon: {error.code}") from error
            with session:
                main = psutil.Process(daemon.pid)
                _settle(main)
                everyone = [main, *main.children(recursive=True)]
                samples = [_share(everyone, _IDLE_SECONDS) for _ in range(rounds)]
        finally:
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
    return median_row(case, "cpu_percent", "%", samples)


def idle_with_port(case: str, rounds: int) -> Row:
    """The same of a daemon that drives a DPDK port, on a veth pair whose other end is silent."""
    with namespaces() as (a, b):
        cable = Cable(a, b, 9000)
        cable.up()
        device = f"net_af_packet0,iface={cable.ends[0]},mtu=9000,ip=10.99.0.1"
        return idle(case, rounds, ("--dpdk", device), inside=a)


def _log() -> tempfile._TemporaryFileWrapper[bytes]:
    return tempfile.NamedTemporaryFile(prefix="genie-bench-")


def _wait_for(
    socket: Path, daemon: subprocess.Popen[bytes], log: tempfile._TemporaryFileWrapper[bytes]
) -> None:
    try:
        until_listening(socket, daemon)
    except RuntimeError as error:
        lines = Path(log.name).read_text("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if line.lower().startswith("error")] or lines
        raise Unavailable(errors[0] if errors else str(error)) from None


def _settle(daemon: psutil.Process) -> None:
    """Wait until what starts with a session (an executor that imports torch) has started."""
    quiet = 0
    deadline = time.monotonic() + _SETTLING
    while quiet < 4 and time.monotonic() < deadline:
        busy = _share([daemon, *daemon.children(recursive=True)], 0.5)
        quiet = quiet + 1 if busy < _STARTING else 0


def _share(processes: Sequence[psutil.Process], seconds: float) -> float:
    """CPU time over `seconds`, in per cent of one core."""
    before, begin = _spent(processes), time.monotonic()
    time.sleep(seconds)
    return (_spent(processes) - before) / (time.monotonic() - begin) * 100


def _spent(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        # schedstat counts nanoseconds; the clock ticks of /proc/PID/stat are 10 ms.
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total
