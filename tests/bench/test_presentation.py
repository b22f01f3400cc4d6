"""Tables and plot of the suite `transport`."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from syrupy.assertion import SnapshotAssertion

from genie.bench.report import LeftOut, Report, Row
from genie.bench.transport._plot import plot
from genie.bench.transport._table import split_case, tables

ROWS = (
    Row("shm/64B", "throughput", 0.0123, "GB/s", (0.0123,)),
    Row("memcpy/1MiB", "throughput", 25.0, "GB/s", (25.0,)),
    Row("shm/1MiB", "throughput", 20.0, "GB/s", (20.0,), "memcpy", 0.8),
    Row("memcpy/64MiB", "throughput", 10.0, "GB/s", (10.0,)),
    Row("shm/64MiB", "throughput", 9.5, "GB/s", (9.0, 9.5, 10.0), "memcpy", 0.95),
    Row("shm/64MiB", "times_grpc", 21.25, "×", (21.25,)),
    Row("shm/64MiB", "cpu_s_per_gb", 0.21, "s/GB", (0.21,)),
    Row("shm/64B", "rtt_p50_us", 0.87, "µs", (0.87,)),
    Row("shm/64B", "rtt_p90_us", 0.99, "µs", (0.99,)),
    Row("shm/64B", "rtt_p99_us", 12.4, "µs", (12.4,)),
    Row("shm/64B", "wake_p50_us", 31.0, "µs", (31.0,)),
    Row("shm/64B", "cold_p50_us", 54.0, "µs", (54.0,)),
    Row("dpdk-ring/64MiB/loss1%", "goodput", 3.1, "GB/s", (3.1,), "dpdk-ring/64MiB", 0.91),
    Row("daemon/idle", "cpu_percent", 0.25, "%", (0.25, 0.3)),
)
OUT = (
    LeftOut("dpdk-memif", "GEN0644: Genie was built without DPDK"),
    LeftOut("dpdk-ring", "GEN0644: Genie was built without DPDK"),
    LeftOut("ray", "not installed: pip install ray"),
)
MACHINE = {"cpu": "a CPU", "cpus": 2, "torch": "2.13.0"}


def test_tables(snapshot: SnapshotAssertion) -> None:
    text = Report(ROWS, OUT, MACHINE).to_text()
    assert text == snapshot
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_full_run_fits_a_terminal() -> None:
    """The longest names that there are, and every size of a full run."""
    from genie.bench.transport._load import size_name
    from genie.bench.transport._suite import _GENIE, FULL

    rows = [
        Row(f"{name}/{size_name(size)}", "throughput", 123.4, "GB/s", (1.0,), baseline, 0.99)
        for name, (baseline, _) in _GENIE.items()
        for size in FULL.sizes
    ]
    lines, others = tables(rows)
    assert others == []
    assert max(len(line) for line in lines) <= 120


def test_case_names() -> None:
    assert split_case("shm/64MiB") == ("shm", 64 << 20, "")
    assert split_case("dpdk-ring/64MiB/loss1%") == ("dpdk-ring", 64 << 20, "loss1%")
    assert split_case("compile/resnet18") == ("compile/resnet18", None, "")
    assert split_case("python/submit+complete") == ("python/submit+complete", None, "")


def test_the_plot_has_a_line_for_each_path() -> None:
    space = "{http://www.w3.org/2000/svg}"
    root = ET.fromstring(plot(ROWS))  # noqa: S314  # our own
    texts = [element.text for element in root.iter(f"{space}text")]
    assert {"shm", "memcpy", "64B", "1MiB", "64MiB"} <= set(texts)
    dots = list(root.iter(f"{space}circle"))
    assert len(dots) == 5
    places = {(float(d.get("cx", "")), float(d.get("cy", ""))) for d in dots}
    assert all(0 < x < 900 and 0 < y < 520 for x, y in places)
    # Faster is higher, larger is further right.
    by_rate = sorted((row for row in ROWS if row.metric == "throughput"), key=lambda r: r.value)
    assert max(y for _, y in places) > min(y for _, y in places)
    assert by_rate[0].case == "shm/64B"
    assert max(places, key=lambda place: place[1]) == min(places, key=lambda place: place[0])


def test_names_are_escaped_in_the_plot() -> None:
    row = Row("<b>&/1MiB", "throughput", 1.0, "GB/s", (1.0,))
    assert "<b>" not in plot([row])


def test_nothing_to_plot() -> None:
    with pytest.raises(ValueError, match="no throughput"):
        plot([ROWS[-1]])
