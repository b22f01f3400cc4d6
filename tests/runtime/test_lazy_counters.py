"""What lazy devices count, as their daemon hears it with heartbeats and `genie status` shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from syrupy.assertion import SnapshotAssertion

from genie.client.channel import Channel, Credentials
from genie.client.opening import hello
from genie_runtime import endpoint
from genie_schemas import messages as m
from genie_schemas.canonical import MAX_SAFE_INT
from genie_schemas.errors import GenieError
from tests.daemons import Daemon, Daemons

GENIE = Path(sys.executable).parent / "genie"
NAMES = list(m.LazyCounters.model_fields)


def status(daemon: Daemon, *options: str) -> str:
    command = [str(GENIE), "status", "--on", daemon.endpoint, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def shown(daemon: Daemon) -> tuple[dict[str, int], list[dict[str, int]]]:
    """(totals, sessions) of the lazy counters in `genie status --json`."""
    found = json.loads(status(daemon, "--json"))
    return {name: found["telemetry"][f"lazy_{name}"] for name in NAMES}, found["lazy"]


def beat(daemon: Daemon, messages: Iterable[bytes]) -> list[bytes]:
    """The answers to the messages of one heartbeat stream."""
    with grpc.insecure_channel(endpoint.parse(daemon.endpoint).grpc_target) as raw:
        call = raw.stream_stream(f"/{m.SERVICE}/Heartbeat", None, None)
        return list(call(iter(messages), timeout=20))


def counters(*numbers: int) -> m.LazyCounters:
    return m.LazyCounters(**dict(zip(NAMES, numbers, strict=True)))


def keep(session: str, lazy: m.LazyCounters | None) -> bytes:
    return m.encode(m.KeepRequest(session=session, lazy=lazy))


@pytest.fixture
def opened(daemons: Daemons) -> tuple[Daemon, Channel, list[str]]:
    """A daemon with two sessions that no heartbeat of their own keeps."""
    daemon = daemons.start()
    control = Channel(endpoint.parse(daemon.endpoint), Credentials())
    return daemon, control, [control.call("Open", hello(), m.OpenReply).session for _ in range(2)]


def test_sessions_and_totals_are_shown(
    opened: tuple[Daemon, Channel, list[str]], snapshot: SnapshotAssertion
) -> None:
    daemon, control, (first, second) = opened
    one, other = counters(900, 3, 840, 2, 1, 4, 5), counters(10, 1, 8, 0, 1, 0, 1)
    for answer in beat(daemon, [keep(first, one), keep(first, one), keep(second, other)]):
        m.decode_reply(m.Pulse, answer)
    totals, sessions = shown(daemon)
    assert list(totals.values()) == [910, 4, 848, 2, 2, 4, 6]
    assert {s["ops_intercepted"] for s in sessions} == {900, 10}
    assert all(set(session) == {*NAMES, "age_s"} for session in sessions)  # and not whose it is
    lines = [line for line in status(daemon).splitlines() if "lazy" in line]
    assert re.sub(r"of \d+ s:", "of AGE s:", "\n".join(lines)) == snapshot
    last = m.KeepRequest(session=first, lazy=counters(1000, 4, 940, 3, 1, 4, 6))
    control.call("Close", last, m.Empty)  # what was counted since the last heartbeat comes along
    totals, sessions = shown(daemon)
    assert list(totals.values()) == [1010, 5, 948, 3, 2, 4, 7]
    assert [s["ops_intercepted"] for s in sessions] == [10]
    control.close()


def test_a_status_without_lazy_devices_does_not_speak_of_them(
    opened: tuple[Daemon, Channel, list[str]],
) -> None:
    daemon, control, (first, _) = opened
    beat(daemon, [keep(first, None)])
    assert "lazy" not in status(daemon)
    assert set(shown(daemon)[0].values()) == {0}
    assert shown(daemon)[1] == []
    control.close()


def test_numbers_that_go_back_are_not_believed(
    opened: tuple[Daemon, Channel, list[str]],
) -> None:
    daemon, control, (first, _) = opened
    beat(daemon, [keep(first, counters(*[7] * 7)), keep(first, counters(3, *[8] * 6))])
    assert list(shown(daemon)[0].values()) == [7, *[8] * 6]
    beat(daemon, [keep(first, counters(*[8] * 7))])
    assert list(shown(daemon)[0].values()) == [8] * 7
    control.close()


def test_what_is_no_number_is_refused(opened: tuple[Daemon, Channel, list[str]]) -> None:
    daemon, control, (first, _) = opened
    hostile: list[Any] = [
        {"ops_intercepted": -1},
        {"ops_intercepted": MAX_SAFE_INT + 1},
        {"graphs_run": 1.5},
        {"graphs_run": "1"},
        {"host_fallbacks": None},
        {"synchronisations": True},
        [],
        "x",
    ]
    for lazy in hostile:
        sent = json.dumps({"session": first, "lazy": lazy}).encode()
        refused, kept = beat(daemon, [sent, keep(first, None)])
        with pytest.raises(GenieError) as caught:
            m.decode_reply(m.Pulse, refused)
        assert caught.value.code == "GEN0509", lazy
        m.decode_reply(m.Pulse, kept)  # the session goes on
    assert set(shown(daemon)[0].values()) == {0}
    control.close()


def test_names_that_nobody_knows_are_not_kept(
    opened: tuple[Daemon, Channel, list[str]],
) -> None:
    daemon, control, (first, _) = opened
    lazy = {"ops_intercepted": 1, **{f"line_{i}": i for i in range(1000)}}
    beat(daemon, [json.dumps({"session": first, "lazy": lazy}).encode()])
    totals, sessions = shown(daemon)
    assert totals["ops_intercepted"] == 1
    assert set(sessions[0]) == {*NAMES, "age_s"}
    assert "line_" not in status(daemon, "--json")
    control.close()


def test_totals_stay_readable_whatever_clients_claim(
    opened: tuple[Daemon, Channel, list[str]],
) -> None:
    daemon, control, sessions = opened
    beat(daemon, [keep(session, counters(*[MAX_SAFE_INT] * 7)) for session in sessions])
    assert set(shown(daemon)[0].values()) == {MAX_SAFE_INT}
    control.close()
