"""`genie bench` measures what it says; nothing here judges the figures."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genie.bench import SUITES, memory, run_suites
from genie.bench.measure import alternate, median_ratio
from genie.bench.report import LeftOut, Report, Row
from genie.bench.sizes import PLAN_SIZES
from genie.bench.suites import Unavailable

GENIE = Path(sys.executable).parent / "genie"


def test_alternate_calls_in_turn_and_drops_the_warm_up() -> None:
    calls: list[str] = []
    samples = alternate([lambda: calls.append("a"), lambda: calls.append("b")], 3, warm_up=1)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [len(s) for s in samples] == [3, 3]
    assert all(s >= 0 for series in samples for s in series)


def test_ratio_is_taken_round_by_round() -> None:
    # The machine slowed down threefold after the first round: the ratio is 2 all the same.
    assert median_ratio([2.0, 6.0, 6.0], [1.0, 3.0, 3.0]) == 2.0


def test_report_keeps_samples_and_says_what_was_left_out() -> None:
    row = Row("a/b", "wall_s", 2.0, "s", (1.0, 2.0, 3.0), "a/base", 1.5)
    report = Report((row,), (LeftOut("bert", "no transformers"),))
    data = report.to_json()
    assert data["rows"] == [
        {
            "case": "a/b",
            "metric": "wall_s",
            "value": 2.0,
            "unit": "s",
            "baseline": "a/base",
            "ratio": 1.5,
            "samples": [1.0, 2.0, 3.0],
        }
    ]
    assert data["left_out"] == [{"case": "bert", "reason": "no transformers"}]
    assert {"cpu", "cpus", "torch", "python"} <= set(data["machine"])
    text = report.to_text()
    assert "1.500 × a/base" in text
    assert "left out: bert: no transformers" in text


def test_a_suite_that_cannot_run_is_named_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(quick: bool) -> list[Row]:
        raise Unavailable("no such machine")

    def can(quick: bool) -> list[Row]:
        return [Row("x", "y", 1.0, "s", (1.0,))]

    monkeypatch.setitem(SUITES, "cannot", ("", cannot))
    monkeypatch.setitem(SUITES, "can", ("", can))
    report = run_suites(["cannot", "can"], quick=True)
    assert [r.case for r in report.rows] == ["x"]
    assert report.left_out == (LeftOut("cannot", "no such machine"),)


def _genie(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([GENIE, *argv], capture_output=True, text=True, timeout=240)


def test_list_and_unknown_suite() -> None:
    listed = _genie("bench", "--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(SUITES)
    unknown = _genie("bench", "exeucte")
    assert unknown.returncode == 2
    assert "execute" in unknown.stderr
    assert "Traceback" not in unknown.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        (
            "execute",
            {
                ("eager/resnet18", "latency_ms"),
                ("embedded/resnet18", "latency_ms"),
                ("embedded/resnet18", "max_abs"),
                ("embedded/resnet18", "overhead_us"),
                ("embedded/mlp", "p50_us"),
                ("embedded/mlp", "p99_us"),
                *(
                    (f"{path}/mlp", metric)
                    for path in ("control", "remote")
                    for metric in ("p50_us", "p99_us", "daemon_cpu_us", "executor_cpu_us")
                ),
            },
        ),
        (
            "startup",
            {
                ("startup/python", "wall_ms"),
                ("startup/help", "wall_ms"),
                ("daemon/start", "first_session_ms"),
                ("daemon/memory", "rss_before_first_plan"),
            },
        ),
    ],
)
def test_suite_prints_its_rows_as_json(suite: str, expected: set[tuple[str, str]]) -> None:
    done = _genie("bench", suite, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    rows = {(r["case"], r["metric"]): r for r in json.loads(done.stdout)["rows"]}
    assert set(rows) == expected
    assert all(len(r["samples"]) >= 1 for r in rows.values())
    if suite == "execute":
        assert rows["embedded/resnet18", "max_abs"]["value"] == 0
        assert rows["embedded/resnet18", "latency_ms"]["baseline"] == "eager/resnet18"


@pytest.mark.parametrize("draw", [memory._plan_sizes, memory._log_uniform])
def test_a_nearly_full_pool_serves_every_request_and_proves_its_figure(
    draw: Callable[[random.Random], Iterator[int]],
) -> None:
    found = memory._drive(draw(random.Random(1)), 4000)
    assert found.refused == 0
    assert len(found.allocate) == 4000
    # What the pool claims to serve, it has served: a request that fails counts as 100 %.
    assert found.fragmentation
    assert all(0 <= share < 100 for share in found.fragmentation)


def test_recorded_buffer_sizes_are_sizes() -> None:
    assert all(size > 0 and count > 0 for size, count in PLAN_SIZES)
    assert [size for size, _ in PLAN_SIZES] == sorted({size for size, _ in PLAN_SIZES})
