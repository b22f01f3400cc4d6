"""Rows of samples, the page and the plots."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from genie.bench.report import LeftOut, Report, Row
from genie.bench.semantics import _page, _plot, _rows
from genie.bench.semantics._generation import Spoken
from genie.bench.semantics._wires import Traffic

MACHINE = {"cpu": "a CPU", "cpus": 2, "torch": "2.13.0"}


def _rows_of(case: str) -> list[Row]:
    spent = {
        "naive": [Traffic(900, 100, 0)],
        "blind": [Traffic(50, 50, 0), Traffic(60, 60, 0), Traffic(50, 60, 0)],
        "genie": [Traffic(20, 4, 31)],
    }
    latency = [
        Row(case, f"latency_ms/{mode}/{trip}", float(trip + 2), "ms", (float(trip + 2),))
        for mode in ("local", "naive", "blind", "genie")
        for trip in (0, 30)
    ]
    calls = Row(case, "operations/blind", 94, "", (94.0,))
    return [*_rows.traffic(case, spent), calls, *latency]


def test_traffic_is_compared_by_all_links_together() -> None:
    rows = {row.metric: row for row in _rows_of("vision")}
    assert rows["traffic_bytes/blind"].value == 110
    assert rows["client_bytes/genie"].value == 24
    assert rows["traffic_vs_naive"].value == 55 / 1000
    assert (rows["traffic_vs_blind"].value, rows["traffic_vs_blind"].baseline) == (0.5, "blind")


class _Of:
    def __init__(self, devices: int) -> None:
        self.name = "llm-decode"
        self.label = "llm-decode" if devices == 2 else "llm-decode/one-device"
        self.devices = devices


@pytest.mark.parametrize("devices", [1, 2])
def test_token_ratios_are_taken_round_by_round(devices: int) -> None:
    spoken = {
        ("local", 0): [Spoken((1,), 10.0), Spoken((1,), 40.0)],
        ("local", 30): [Spoken((1,), 10.0), Spoken((1,), 40.0)],
        ("genie", 0): [Spoken((1,), 12.0, 11.0), Spoken((1,), 48.0, 44.0)],
        ("genie", 30): [Spoken((1,), 12.0, 22.0), Spoken((1,), 48.0, 88.0)],
    }
    found = list(_rows.tokens(_Of(devices), spoken, (0, 30)))  # type: ignore[arg-type]
    rows = {(row.case, row.metric): row.value for row in found}
    label, where = _Of(devices).label, "" if devices == 1 else "/two-devices"
    # The machine slowed down fourfold after the first round: the ratios are the same all the same.
    assert rows[label, "latency_30ms_over_0ms"] == 2.0
    assert rows[label, "latency_30ms_over_0ms_client"] == 1.0
    assert rows["llm-decode", f"latency_over_local{where}"] == 1.1
    assert rows["llm-decode", f"latency_over_local_client{where}"] == 1.2
    assert rows[label, "latency_ms/genie/0"] == 30.0
    assert rows[label, "daemon_ms/genie/30"] == 55.0


def _report() -> Report:
    rows = (*_rows_of("vision"), *_rows_of("llm-decode"), *_rows_of("vision/one-device"))
    return Report(rows, (LeftOut("llm-prefill", "no <model>"),), MACHINE)


def test_plots_have_a_panel_for_each_workload_on_two_devices() -> None:
    space = "{http://www.w3.org/2000/svg}"
    for draw, shape, count in ((_plot.traffic, "rect", 1 + 2 * 3), (_plot.latency, "circle", 16)):
        root = ET.fromstring(draw(_report().rows))  # noqa: S314  # our own
        texts = [element.text for element in root.iter(f"{space}text")]
        assert {"vision", "llm-decode", "genie"} <= set(texts)
        assert "vision/one-device" not in texts
        assert len(list(root.iter(f"{space}{shape}"))) == count
    with pytest.raises(ValueError, match="nothing to plot"):
        _plot.traffic([])


def test_the_page_keeps_its_words_and_replaces_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "semantics.md"
    page.write_text("# Words\n\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
    written = _page.write(_report(), tmp_path)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    text = page.read_text()
    assert text.startswith("# Words\n")
    assert text.endswith("<!-- measured: end -->\nafter\n")
    assert "old" not in text
    assert "| vision | 1 000 | 110 | 55 | 0.055 | 0.5 | 94 | – |" in text
    assert "| vision/one-device | 30 | 32 | 32 | 32 | 32 |" in text
    assert "Left out: llm-prefill: no <model>." in text
    again = _page.write(_report(), tmp_path)
    assert (again, page.read_text()) == (written, text)
    raw = json.loads((tmp_path / "semantics.json").read_text())
    assert len(raw["rows"]) == len(_report().rows)
