"""Every way in which an invocation fails: deadlines, cancellation, deaths, shutdown."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from genie.client import connect
from genie.client.admin import cancel, status
from genie_schemas.errors import GenieError
from tests.daemons import Daemons, until
from tests.plans_by_hand import slow, two_layers
from tests.runtime.support import EYE, X, warm
from tests.runtime.test_faults import held, in_mid_run


def test_a_deadline_that_has_passed(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        warm(session, {"x": X})
        until(lambda: status(daemon.endpoint).runs == 2)  # counted when the reply was verified
        with pytest.raises(GenieError) as caught:
            session.run({"x": X}, deadline=0.0)
        assert caught.value.code == "GEN0414"
        assert status(daemon.endpoint).runs == 2
        assert session.run({"x": X}).attempts == 1


def test_a_deadline_in_mid_request(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=50)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        warm(session, {"x": EYE})
        # Several times: one may be noticed by chance, when the clock looks anyway.
        for _ in range(5):
            with pytest.raises(GenieError) as caught:
                session.run({"x": EYE}, deadline=0.02)
            assert caught.value.code == "GEN0414"
            until(lambda: held(daemon) == (1, 0))
            warm(session, {"x": EYE})
        assert session.run({"x": EYE}).attempts == 1


def test_a_request_is_cancelled_by_its_id(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=250)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        warm(session, {"x": EYE})

        def act() -> None:
            (run,) = status(daemon.endpoint).active
            assert cancel(run.run_id, daemon.endpoint) == 1

        thread = in_mid_run(daemon, act)
        with pytest.raises(GenieError) as caught:
            session.run({"x": EYE})
        thread.join(10)
        assert caught.value.code == "GEN0415"
        until(lambda: held(daemon) == (1, 0))


def test_a_daemon_killed_in_mid_request(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=250)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        warm(session, {"x": EYE})
        in_mid_run(daemon, daemon.kill)
        with pytest.raises(GenieError) as caught:
            session.run({"x": EYE})
        assert caught.value.exit_code == 5
        with pytest.raises(GenieError) as caught:
            session.run({"x": EYE})
        assert caught.value.exit_code == 5


def test_one_of_two_daemons_killed_between_requests(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path, devices=2)
    first, second = daemons.start("d0"), daemons.start("d1")
    with connect([first.endpoint, second.endpoint]) as session:
        session.install(made.path)
        warm(session, {"x": X})
        second.kill()
        with pytest.raises(GenieError) as caught:
            session.run({"x": X})
        assert caught.value.exit_code == 5
        until(lambda: held(first) == (1, 0))


def test_a_client_killed_with_a_request_in_flight(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=300)
    daemon = daemons.start()
    code = (
        "import sys, numpy; from genie.client import connect; s = connect(sys.argv[1]);"
        "s.install(sys.argv[2]); x = {'x': numpy.eye(512, dtype=numpy.float32)};"
        "s.run(x); s.run(x); print('go', flush=True); s.run(x)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, daemon.endpoint, str(made.path)], stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == b"go\n"
        until(lambda: any(run.state == "running" for run in status(daemon.endpoint).active))
    finally:
        client.kill()
        client.wait(10)
        client.stdout.close()
    until(lambda: held(daemon) == (0, 0), 10.0)
    with connect(daemon.endpoint) as session:
        session.install(two_layers(tmp_path).path)
        warm(session, {"x": X})
        assert session.run({"x": X}).attempts == 1


def test_a_killed_worker_is_replaced_and_the_request_tried_again(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = slow(tmp_path, ops=250)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        warm(session, {"x": EYE})
        in_mid_run(daemon, lambda: daemon.workers()[0].kill())
        result = session.run({"x": EYE})
        assert result.attempts == 2
        assert np.array_equal(result.outputs["y"], EYE)
        until(lambda: held(daemon) == (1, 0))
        assert session.run({"x": EYE}).attempts == 1


def test_a_request_at_shutdown_is_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=250)
    daemon = daemons.start()
    with connect(daemon.endpoint) as busy, connect(daemon.endpoint) as session:
        for each in (busy, session):
            each.install(made.path)
        warm(session, {"x": EYE})
        worker = threading.Thread(target=lambda: busy.run({"x": EYE}))
        worker.start()
        until(lambda: any(run.state == "running" for run in status(daemon.endpoint).active))
        daemon.process.terminate()
        until(lambda: '"draining"' in daemon.log)
        with pytest.raises(GenieError) as caught:
            session.run({"x": EYE})
        assert caught.value.code == "GEN0510"
        worker.join(60)
    assert daemon.process.wait(30) == 0
