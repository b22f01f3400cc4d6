"""The suite `transport`, for real but tiny: what it measures, verifies, leaves out and ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from genie.bench.report import LeftOut, Report, Row
from genie.bench.suites import Unavailable
from genie.bench.transport import _dpdk, _faults
from genie.bench.transport._load import MIB, Load, NoSuchFigure, Sample, load_of, size_name
from genie.bench.transport._neighbours import slow_consumer
from genie.bench.transport._network import Cable, namespaces
from genie.bench.transport._paths import End, Ends, over_sockets, percentiles, within
from genie.bench.transport._process import Process
from genie.bench.transport._rounds import Versus, round_trips, throughput
from genie.bench.transport._standalone import Iperf3, needs
from genie.bench.transport._suite import Scope, measure
from genie_transport.testing import PATHS

GENIE = Path(sys.executable).parent / "genie"
TINY = Load(4096, 2, 2)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def ignore(what: str) -> None:
    """Progress that nobody wants."""


def run(**scope: object) -> Report:
    chosen = {"sizes": (64, MIB), "rounds": 2, "trips": 50, "cold": 3, "idle_rounds": 1}
    found = list(measure(Scope(**(chosen | scope))))  # type: ignore[arg-type]
    rows = tuple(row for row in found if isinstance(row, Row))
    return Report(rows, tuple(out for out in found if isinstance(out, LeftOut)))


def test_a_tiny_run_of_real_paths() -> None:
    paths = [path for path in ("loopback", "shm", "tcp", "unix") if path in PATHS]
    report = run(only=("memcpy", *paths))
    assert report.left_out == ()
    rows = {(row.case, row.metric): row for row in report.rows}
    assert len(rows) == len(report.rows)
    for path in paths:
        big = rows[f"{path}/1MiB", "throughput"]
        assert (big.unit, len(big.samples)) == ("GB/s", 2)
        assert big.value > 0
        if path != "tcp":  # iperf3 does not take part
            assert big.baseline == "memcpy"
            base = rows["memcpy/1MiB", "throughput"].samples
            ratios = sorted(a / b for a, b in zip(big.samples, base, strict=True))
            assert big.ratio == pytest.approx(sum(ratios) / 2)
        assert rows[f"{path}/64B", "throughput"].baseline is None
        assert rows[f"{path}/1MiB", "cpu_s_per_gb"].value > 0
        assert (f"{path}/64B", "cpu_s_per_gb") not in rows
        p50, p90, p99 = (rows[f"{path}/64B", f"rtt_p{p}_us"].value for p in (50, 90, 99))
        assert 0 < p50 <= p90 <= p99
        waking, known = (rows[f"{path}/64B", f"{name}_p50_us"].value for name in ("wake", "cold"))
        assert waking > 0
        assert known > 0
    if "shm" in paths:
        assert rows["python/submit+complete", "overhead_us"].value > 0


@pytest.mark.skipif("shm" not in PATHS, reason="the native transports are not built")
def test_a_ratio_beside_another_path() -> None:
    report = run(only=("tcp", "tcp-aead"), sizes=(MIB,))
    (beside,) = [row for row in report.rows if row.metric == "times_tcp"]
    assert (beside.case, beside.unit, len(beside.samples)) == ("tcp-aead/1MiB", "×", 2)


def test_an_idle_daemon() -> None:
    report = run(only=("daemon",), sizes=())
    for row in report.rows:
        assert (row.metric, row.unit) == ("cpu_percent", "%")
        assert 0 < row.value < 100
    names = [row.case for row in report.rows] + [out.case for out in report.left_out]
    assert names == ["daemon/idle", "daemon/idle-dpdk"]
    assert report.rows[0].case == "daemon/idle"


@pytest.mark.root
@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("name", ["dpdk-ring", "dpdk-memif", "dpdk-af_packet"])
def test_dpdk_paths_in_clear_and_sealed(name: str) -> None:
    report = run(only=(name,), sizes=(MIB,))
    if report.left_out and "GEN0644" in report.left_out[0].reason:
        pytest.skip(report.left_out[0].reason)
    assert report.left_out == ()
    rows = {(row.case, row.metric): row for row in report.rows}
    assert rows[f"{name}/1MiB", "throughput"].value > 0
    assert rows[f"{name}-aead/1MiB", "throughput"].baseline == name
    assert rows[f"{name}/64B", "rtt_p50_us"].value > 0
    assert rows[f"{name}-aead/64B", "cold_p50_us"].value > 0


@pytest.mark.slow
def test_goodput_under_loss_and_delay() -> None:
    conditions = (_faults.Condition(loss=2), _faults.Condition(rtt=20))
    found = list(_faults.goodput(conditions, MIB, 2, ignore))
    if isinstance(found[0], LeftOut):
        pytest.skip(found[0].reason)
    rows = [row for row in found if isinstance(row, Row)]
    assert [row.case for row in rows] == ["dpdk-ring/1MiB/loss2%", "dpdk-ring/1MiB/rtt20ms"]
    assert all(row.metric == "goodput" and row.baseline == "dpdk-ring/1MiB" for row in rows)
    # The distance is real: eight messages under way at once take a round trip at least.
    assert max(rows[1].samples) <= 8 * MIB / 0.020 / 1e9


@pytest.mark.slow
def test_a_session_beside_one_that_takes_nothing() -> None:
    found = list(slow_consumer(100, 2))
    if isinstance(found[0], LeftOut):
        pytest.skip(found[0].reason)
    alone, beside = (row for row in found if isinstance(row, Row))
    assert (alone.metric, beside.metric) == ("rtt_p99_us", "rtt_p99_us")
    assert beside.baseline == alone.case
    assert len(beside.samples) == 2


def test_names_of_conditions() -> None:
    assert _faults.Condition(loss=0.1).name == "loss0.1%"
    both = _faults.Condition(loss=1, rtt=30)
    assert (both.name, both.keys) == ("rtt30ms-loss1%", ",drop=0.01,delay_us=15000,seed=7")


# -- what is not there, goes wrong or ends -------------------------------------------------------


def test_bytes_that_do_not_arrive_are_not_a_result() -> None:
    class Lying(Ends):
        def _send(self, burst: int, times: int) -> list[float]:
            return [1e-9] * times

    good = within("loopback", "loopback")
    lying = Lying("lying", good.a, good.b, good.close)
    try:
        found = list(throughput([Versus(lying)], [TINY], 2, ignore))
    finally:
        lying.close()
    (out,) = found
    assert isinstance(out, LeftOut)
    assert out.case == "lying/4KiB"
    assert out.reason.startswith("wrong bytes arrived")


def test_a_worker_s_error_and_its_end_are_reasons() -> None:
    with Process() as worker:
        with pytest.raises(Unavailable, match="GEN0601"):
            worker.ask("pair", a="a", b="b", path="pigeon")
        waiting = worker.start("run", argv=["sleep", "60"], seconds=60.0)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="ended by signal 9"):
            waiting.get(30)
        with pytest.raises(Unavailable):
            worker.ask("pid")


def test_a_worker_that_does_not_answer() -> None:
    with Process() as worker:
        waiting = worker.start("run", argv=["sleep", "60"], seconds=60.0)
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            waiting.get(0.05)
        assert time.monotonic() - begin < 30
        assert worker.ask("pid") == worker.pid  # the others go on


@pytest.mark.skipif("shm" not in PATHS, reason="the native transports are not built")
def test_a_peer_that_dies_is_left_out() -> None:
    path = over_sockets("shm", "shm")
    try:
        path.prepare(TINY)
        os.kill(path.b.worker.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            path.measure(TINY)
    finally:
        path.close()


def test_missing_programs_and_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="apt-get install iperf3"):
        needs("iperf3", "iperf3")
    monkeypatch.setattr("genie.bench.transport._libraries.find_spec", lambda _: None)
    report = run(only=("iperf3", "ucx_perftest-shm", "zeromq", "ray"), sizes=())
    assert report.rows == ()
    assert {out.case: out.reason for out in report.left_out} == {
        "iperf3": "iperf3 is not installed: apt-get install iperf3",
        "ucx_perftest-shm": "ucx_perftest is not installed: apt-get install ucx-utils",
        "zeromq": "not installed: pip install pyzmq",
        "ray": "not installed: pip install ray",
    }


@pytest.mark.root
@needs_root
def test_namespaces_go_with_their_workers() -> None:
    def mine() -> set[str]:
        return set(os.listdir("/sys/class/net"))

    before = mine()
    with namespaces() as (a, b):
        cable = Cable(a, b, 4000)
        cable.up(("10.98.1.1", "10.98.1.2"))
        assert "mtu 4000" in a.ask("run", argv=["ip", "link", "show", cable.ends[0]], seconds=10.0)
        assert cable.ends[1] not in a.ask("run", argv=["ip", "link"], seconds=10.0)
        os.kill(b.pid, signal.SIGKILL)  # however it ends
    assert mine() == before


@pytest.mark.root
@needs_root
def test_iperf3_runs_where_it_is_told_to() -> None:
    with contextlib.ExitStack() as stack:
        try:
            iperf3 = _dpdk.iperf3_veth(stack)()
        except Unavailable as reason:
            pytest.skip(str(reason))
        assert isinstance(iperf3, Iperf3)
        sample = iperf3.measure(load_of(MIB))
    assert sample.bytes > 0
    assert sample.cpu_seconds


# -- arithmetic ----------------------------------------------------------------------------------


@dataclass
class Scripted:
    """A contender with given rates, in bytes a second; None fails."""

    name: str
    rates: list[float | None]
    pings: list[float] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def prepare(self, load: Load) -> None:
        self._rates: Iterator[float | None] = iter(self.rates)

    def measure(self, load: Load) -> Sample:
        self.log.append(self.name)
        rate = next(self._rates)
        if rate is None:
            raise Unavailable("broken")
        return Sample(load.bytes, (load.bytes / rate,), 0.5)

    def finish(self, load: Load) -> None: ...

    def trips(self, count: int) -> dict[str, float]:
        if not self.pings:
            raise NoSuchFigure("a stone")
        return {"p50": self.pings.pop(0)}

    def close(self) -> None: ...


def test_ratios_are_of_the_same_round_and_turns_alternate() -> None:
    log: list[str] = []
    base = Scripted("base", [1e9, 3e9, 2e9], log=log)
    other = Scripted("other", [2e9, 6e9, 4e9], log=log)
    found = list(throughput([Versus(base), Versus(other, "base")], [load_of(MIB)], 3, ignore))
    rows = {(row.case, row.metric): row for row in found if isinstance(row, Row)}
    assert rows["other/1MiB", "throughput"].ratio == pytest.approx(2.0)
    assert rows["other/1MiB", "throughput"].value == pytest.approx(4.0)
    assert rows["other/1MiB", "cpu_s_per_gb"].value == pytest.approx(0.5e9 / (8 * MIB))
    assert log == ["base", "other", "other", "base", "base", "other"]


def test_who_fails_in_one_round_is_left_out_and_nobody_is_compared_with_it() -> None:
    base = Scripted("base", [1e9, None, 2e9])
    found = list(
        throughput(
            [Versus(base), Versus(Scripted("other", [1e9] * 3), "base")], [load_of(MIB)], 3, ignore
        )
    )
    assert LeftOut("base/1MiB", "broken") in found
    (row,) = [r for r in found if isinstance(r, Row) and r.metric == "throughput"]
    assert (row.case, row.ratio) == ("other/1MiB", None)


def test_figures_that_a_contender_cannot_have_are_not_worth_a_line() -> None:
    found = list(
        round_trips([Versus(Scripted("a", [], [3.0, 1.0, 2.0])), Versus(Scripted("b", []))], 3, len)
    )
    (row,) = found
    assert isinstance(row, Row)
    assert (row.case, row.metric, row.value) == ("a/64B", "rtt_p50_us", 2.0)


def test_loads_and_their_names() -> None:
    assert load_of(64) == Load(64, 256, 5)
    assert load_of(MIB) == Load(MIB, 8, 5)
    assert load_of(256 * MIB) == Load(256 * MIB, 1, 3)
    assert [size_name(s) for s in (64, 1 << 10, 1536, MIB)] == ["64B", "1KiB", "1536B", "1MiB"]


def test_percentiles_by_the_nearest_rank() -> None:
    assert percentiles([float(v) for v in range(101)]) == {"p50": 50, "p90": 90, "p99": 99}
    assert percentiles([7.0]) == {"p50": 7.0, "p90": 7.0, "p99": 7.0}


def test_the_command_refuses_a_plot_without_the_suite(tmp_path: Path) -> None:
    done = subprocess.run(
        [GENIE, "bench", "startup", "--plot", str(tmp_path / "p.svg")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "only the suite transport has a plot" in done.stderr
    assert not (tmp_path / "p.svg").exists()


def test_json_of_a_row_is_what_scripts_read() -> None:
    row = Row("shm/64MiB", "throughput", 10.0, "GB/s", (9.0, 10.0, 11.0)).against("memcpy", 0.9)
    assert json.loads(json.dumps(row.to_json())) == {
        "case": "shm/64MiB",
        "metric": "throughput",
        "value": 10.0,
        "unit": "GB/s",
        "baseline": "memcpy",
        "ratio": 0.9,
        "samples": [9.0, 10.0, 11.0],
    }


def test_an_end_is_a_name_in_a_worker() -> None:
    path = within("loopback", "loopback")
    try:
        assert path.a.worker is path.b.worker
        with pytest.raises(Unavailable, match="wrong order"):
            End(path.a.worker, path.a.side).call("digests")
    finally:
        path.close()
