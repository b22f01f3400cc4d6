"""Runs that somebody gives up: they end soon, with the documented status, and leave nothing."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from tests.acceptance.conftest import Compiled, Started, genie
from tests.daemons import Daemon, Daemons, until


def status(daemon: Daemon) -> Any:
    return genie("status", "--on", daemon.endpoint, "--json").data


def held(daemon: Daemon) -> int:
    return sum(device["reserved_bytes"] for device in status(daemon)["devices"])


def test_ctrl_c_ends_an_embedded_run_that_computes(compiled: Compiled) -> None:
    run = Started("execute", compiled.plan, "--input", f"x={compiled.long}")
    process = psutil.Process(run.process.pid)
    # Loading torch takes a few seconds of processor time; more than this is the run's.
    until(lambda: run.process.poll() is not None or process.cpu_times().user > 10, 90)
    run.interrupt()
    done = run.end(timeout=45)
    assert done.code == 130, done.err
    assert "GEN0191" in done.err
    assert "Traceback" not in done.err
    assert "terminate called" not in done.err


@pytest.mark.parametrize("where", ["embedded", "daemon"])
def test_a_deadline_ends_a_run_that_computes(
    compiled: Compiled, daemons: Daemons, where: str
) -> None:
    on = [] if where == "embedded" else ["--on", daemons.start().endpoint]
    asked = ["execute", compiled.plan, "--input", f"x={compiled.long}", "--deadline", "6", *on]
    done = genie(*asked, timeout=60)
    assert done.code == 7, done.err
    assert "GEN0414" in done.err
    assert "terminate called" not in done.err


def test_a_killed_client_leaves_no_memory_held(compiled: Compiled, daemons: Daemons) -> None:
    """The lease ends 5 s after the last heartbeat, and the program in progress with it."""
    daemon = daemons.start()
    run = Started(
        *("execute", compiled.plan, "--input", f"x={compiled.long}"),
        *("--on", daemon.endpoint, "--run-id", "mine"),
    )
    until(lambda: [r["state"] for r in status(daemon)["active"]] == ["running"], 60)
    assert held(daemon) > 0
    run.process.kill()
    run.end()
    until(lambda: held(daemon) == 0 and status(daemon)["sessions"] == 0, 20)
    # Nothing was published under the id, and the device serves the next one.
    again = genie(
        *("execute", compiled.plan, "--input", f"x={compiled.short}"),
        *("--on", daemon.endpoint, "--json"),
    )
    assert again.code == 0, again.err
    assert again.data["attempts"] == 1
