"""Processes that die at the worst moment: equal results, effects once, and nothing hangs."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from genie.client import connect
from genie.client.admin import status
from genie_runtime import faults
from genie_runtime.config import Limits
from genie_schemas.errors import GenieError
from tests.daemons import Daemon, Daemons, until
from tests.plans_by_hand import HandMade, slow, two_layers

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)
HOT = [name for name in faults.POINTS if not name.startswith(("fail.", "evict."))]


def run(made: HandMade, on: list[str], run_id: str | None = "run-1", **options: Any) -> Any:
    with connect(on) as session:
        session.install(made.path)
        return session.run({"x": X}, run_id=run_id, **options)


def same(a: Any, b: Any) -> bool:
    return all(a.outputs[n].tobytes() == b.outputs[n].tobytes() for n in ("y", "hidden"))


def in_mid_run(daemon: Daemon, act: Callable[[], None]) -> threading.Thread:
    """Do something, in a thread, a moment after a run has begun on the daemon."""

    def wait_and_act() -> None:
        until(lambda: any(run.state == "running" for run in status(daemon.endpoint).active), 60.0)
        time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    return thread


def publications(daemon: Daemon) -> list[tuple[str, str, int]]:
    with sqlite3.connect(daemon.state_dir / "ledger.sqlite") as db:
        rows = db.execute("SELECT run_id, state, publications FROM runs").fetchall()
    db.close()
    return rows


def killings() -> list[Any]:
    """Every point with one of the daemons, in turn, and in the long sweep with the other too."""
    return [
        pytest.param(point, victim, marks=[] if victim == number % 2 else pytest.mark.sweep)
        for number, point in enumerate(HOT)
        for victim in (0, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "victim"), killings())
def test_a_daemon_killed_at_each_ledger_point_of_a_run_over_two(
    daemons: Daemons, tmp_path: Path, point: str, victim: int
) -> None:
    made = two_layers(tmp_path, devices=2)
    with connect() as session:
        session.install(made.path)
        wanted = session.run({"x": X})
    armed = [{faults.VARIABLE: point} if n == victim else {} for n in (0, 1)]
    pair = [daemons.start(f"d{n}", env=armed[n]) for n in (0, 1)]
    ends = [daemon.endpoint for daemon in pair]
    try:
        first = run(made, ends, deadline=30.0)
    except GenieError as error:
        assert error.exit_code == 5
    else:
        assert same(first, wanted)  # the daemon died with its last word already said
    until(lambda: pair[victim].process.poll() is not None)
    assert pair[victim].process.returncode == -signal.SIGKILL
    pair[victim] = daemons.start(f"d{victim}")
    again = run(made, ends, deadline=30.0)
    assert same(again, wanted)
    last = run(made, ends, deadline=30.0)
    assert last.replayed
    assert same(last, wanted)
    for daemon in pair:
        assert publications(daemon) == [("run-1", "published", 1)]
        assert len(list((daemon.state_dir / "outputs").iterdir())) == 1
        assert daemon.stop() == 0


@pytest.mark.parametrize("point", ["fail.before_commit", "fail.after_commit"])
def test_a_daemon_killed_while_it_records_a_failure(
    daemons: Daemons, tmp_path: Path, point: str
) -> None:
    made = slow(tmp_path, ops=4000)
    (tmp_path / "small").mkdir()
    small = slow(tmp_path / "small", ops=2)
    daemon = daemons.start(env={faults.VARIABLE: point})
    x = np.eye(512, dtype=np.float32)
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        with pytest.raises(GenieError) as caught:
            session.run({"x": x}, run_id="run-1", deadline=0.5)
    assert caught.value.exit_code in (5, 7)
    until(lambda: daemon.process.poll() is not None)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(small.path)
        with pytest.raises(GenieError) as caught:
            session.run({"x": x}, run_id="run-1")
        assert caught.value.code == "GEN0410"  # the id stays bound to the plan that failed
        session.run({"x": x}, run_id="run-2")
    states = {row[0]: row[1:] for row in publications(daemon)}
    assert states["run-2"] == ("published", 1)
    assert states["run-1"][1] == 0


@pytest.mark.parametrize("point", ["evict.before_commit", "evict.after_commit"])
def test_a_daemon_killed_while_it_evicts(daemons: Daemons, tmp_path: Path, point: str) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start("d0", "--ledger-size", "500B", env={faults.VARIABLE: point})
    first = run(made, [daemon.endpoint], "run-1")
    with pytest.raises(GenieError) as caught:
        run(made, [daemon.endpoint], "run-2")
    assert caught.value.exit_code == 5
    until(lambda: daemon.process.poll() is not None)
    daemon = daemons.start("d0", "--ledger-size", "500B")
    assert run(made, [daemon.endpoint], "run-2").replayed
    if point == "evict.before_commit":
        again = run(made, [daemon.endpoint], "run-1")
        assert again.replayed
        assert same(again, first)
    else:
        with pytest.raises(GenieError) as caught:
            run(made, [daemon.endpoint], "run-1")
        assert caught.value.code == "GEN0411"
        assert len(list((daemon.state_dir / "outputs").iterdir())) == 1


def test_a_killed_worker_is_replaced_and_the_run_is_tried_again(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = slow(tmp_path, ops=250)
    daemon = daemons.start()
    x = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        wanted = session.run({"x": x})
        assert wanted.attempts == 1
        (worker,) = daemon.workers()
        killer = in_mid_run(daemon, worker.kill)
        again = session.run({"x": x})
        killer.join()
        assert again.attempts == 2
        assert again.outputs["y"].tobytes() == wanted.outputs["y"].tobytes()
        assert daemon.workers()[0].pid != worker.pid


def test_a_plan_without_attempts_left_fails_with_the_reason(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = slow(tmp_path, ops=400, attempts=1)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        (worker,) = daemon.workers()
        in_mid_run(daemon, worker.kill)
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.eye(512, dtype=np.float32)})
    assert caught.value.code.startswith("GEN045")
    assert caught.value.context["attempts"] == 1


def test_a_daemon_killed_in_mid_run_is_noticed_by_the_heartbeat(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = slow(tmp_path, ops=1000)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        in_mid_run(daemon, daemon.kill)
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.eye(512, dtype=np.float32)}, run_id="run-1")
        assert caught.value.exit_code == 5
    # Its workers do not outlive it.
    until(lambda: not _orphans(daemon))


def _orphans(daemon: Daemon) -> list[psutil.Process]:
    return [
        p
        for p in psutil.process_iter(["cmdline", "cwd"])
        if "genie_runtime.executors.worker" in " ".join(p.info["cmdline"] or [])
        and p.info["cwd"] == str(daemon.folder)
    ]


def test_a_daemon_that_hangs_is_noticed_and_publishes_nothing_when_it_is_back(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = slow(tmp_path, ops=250)
    daemon = daemons.start()
    x = np.eye(512, dtype=np.float32)
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        in_mid_run(daemon, lambda: daemon.process.send_signal(signal.SIGSTOP))
        with pytest.raises(GenieError) as caught:
            session.run({"x": x}, run_id="run-1")
        assert caught.value.code == "GEN0502"
    # Its worker goes on meanwhile and ends the run; the lease of the session runs out.
    time.sleep(Limits().lease + 1.0)
    os.kill(daemon.process.pid, signal.SIGCONT)
    until(lambda: held(daemon) == (0, 0), 15.0)
    assert publications(daemon) == [("run-1", "failed", 0)]
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        assert not session.run({"x": x}, run_id="run-1", deadline=60.0).replayed
    assert publications(daemon) == [("run-1", "published", 1)]


def held(daemon: Daemon) -> tuple[int, int]:
    """(sessions, bytes reserved by runs) of a daemon."""
    found = status(daemon.endpoint)
    return found.sessions, sum(device.reserved_bytes for device in found.devices)


def test_a_client_killed_in_mid_run_leaves_nothing_behind(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=2000)
    daemon = daemons.start()
    code = (
        "import sys, numpy; from genie.client import connect; s = connect(sys.argv[1]);"
        "s.install(sys.argv[2]); print('go', flush=True);"
        "s.run({'x': numpy.eye(512, dtype=numpy.float32)})"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, daemon.endpoint, str(made.path)], stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == b"go\n"
        until(lambda: held(daemon)[1] > 0, 20.0)
    finally:
        client.kill()
        client.wait(10)
        client.stdout.close()
    until(lambda: held(daemon) == (0, 0), 10.0)
    # And the daemon serves the next one.
    small = two_layers(tmp_path)
    assert run(small, [daemon.endpoint], None).attempts == 1


def test_an_unknown_fault_point_is_refused_at_the_start(daemons: Daemons) -> None:
    daemon = daemons.start(env={faults.VARIABLE: "publish.befor_file"}, wait=False)
    assert daemon.process.wait(20) == 1
    assert "names no fault point" in daemon.log


def test_fault_points_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        faults.reach("no such point")
    killed: list[int] = []
    monkeypatch.setattr(faults, "_ARMED", ("publish.before_file", 2))
    monkeypatch.setattr(faults, "_counts", {})
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
    faults.reach("publish.before_file")
    assert not killed
    faults.reach("publish.after_file")
    assert not killed
    faults.reach("publish.before_file")
    assert killed == [signal.SIGKILL]
