"""Invocations over the data plane: what travels, what is executed, and every way of failing."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from genie.client import connect
from genie.client.admin import status
from genie.client.calls import MAX_IDLE
from genie.client.opening import hello
from genie.client.remote import RemoteLink
from genie.client.session import Session
from tests.daemons import Daemons, until
from tests.plans_by_hand import expected, slow, two_layers
from tests.runtime.support import EYE, X, control_calls, folders, link, reserved, warm
from tests.runtime.test_faults import held


@pytest.mark.parametrize("devices", [1, 2])
def test_requests_take_no_control_message(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    made = two_layers(tmp_path, devices=devices)
    on = [daemons.start(f"d{i}").endpoint for i in range(devices)]
    want = expected(made, X)
    with connect(on) as session:
        session.install(made.path)
        with control_calls(session, monkeypatch) as counts:
            first = session.run({"x": X})
            assert counts["Prepare"] == devices
            session.run({"x": X})
            assert counts["OpenCall"] == devices
            assert counts["Prepare"] == devices
        with control_calls(session, monkeypatch) as counts:
            for scale in (1, 2, 3):
                result = session.run({"x": X * scale})
                if scale == 1:
                    assert {n: a.tobytes() for n, a in result.outputs.items()} == {
                        n: a.tobytes() for n, a in first.outputs.items()
                    }
                else:
                    assert not np.array_equal(result.outputs["y"], first.outputs["y"])
            assert not counts
        for name in ("y", "hidden"):
            assert np.allclose(first.outputs[name], want[name], atol=1e-5)
        assert set(result.transports.values()) == {"shm"}
        assert result.attempts == 1
        assert result.literals == {"label": 7}
        assert result.bytes["sent"] > X.nbytes
        assert result.bytes["received"] > sum(a.nbytes for a in result.outputs.values())
        assert 0 < result.timing.compute_ms < result.timing.total_ms
        assert result.peak_bytes.keys() == {f"d{i}" for i in range(devices)}
        assert result.timing.transfer_ms > 0


def test_a_client_of_before_runs_over_control(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = two_layers(tmp_path)
    old = hello().model_copy(update={"protocol": "1.0"})
    with Session([(None, RemoteLink(daemons.start().endpoint, old))]) as session:
        session.install(made.path)
        with control_calls(session, monkeypatch) as counts:
            for _ in range(3):
                assert session.run({"x": X}).attempts == 1
            assert counts["Prepare"] == 3
            assert not counts["OpenCall"]


def test_large_values_travel_from_where_they_lie(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slow(tmp_path, ops=10)
    with connect(daemons.start().endpoint) as session:
        session.install(made.path)
        warm(session, {"x": EYE})
        with control_calls(session, monkeypatch) as counts:
            for seed in range(5):
                x = np.random.default_rng(seed).standard_normal((512, 512), dtype=np.float32)
                result = session.run({"x": x})
                assert np.array_equal(result.outputs["y"], x)
                assert result.bytes["sent"] < x.nbytes + 1024
                assert result.bytes["received"] < x.nbytes + 8192
            assert not counts


def test_sizes_may_change_from_request_to_request(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path, devices=2)
    on = [daemons.start("d0").endpoint, daemons.start("d1").endpoint]
    with connect(on) as session, connect() as embedded:
        session.install(made.path)
        embedded.install(made.path)
        for turn in range(24):
            x = np.random.default_rng(turn).standard_normal((turn % 8 + 1, 16), dtype=np.float32)
            remote, local = session.run({"x": x}), embedded.run({"x": x})
            for name in ("y", "hidden"):
                assert remote.outputs[name].shape[0] == len(x)
                assert np.allclose(remote.outputs[name], local.outputs[name], atol=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_outputs_of_no_bytes(daemons: Daemons, tmp_path: Path, devices: int) -> None:
    made = two_layers(tmp_path, devices=devices, least=0)
    with connect([daemons.start(f"d{i}").endpoint for i in range(devices)]) as session:
        session.install(made.path)
        for rows in (0, 3, 0, 0, 3, 3):
            outputs = session.run({"x": X[:rows]}).outputs
            assert outputs["y"].shape == (rows, 4)
            assert outputs["hidden"].shape == (rows, 32)


def test_named_runs_are_still_recorded(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    with connect(daemons.start().endpoint) as session:
        session.install(made.path)
        warm(session, {"x": X})
        first = session.run({"x": X}, run_id="kept")
        again = session.run({"x": X}, run_id="kept")
        assert (first.replayed, again.replayed) == (False, True)
        assert first.outputs["y"].tobytes() == again.outputs["y"].tobytes()


def test_threads_of_one_session(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path, devices=2)
    on = [daemons.start("d0").endpoint, daemons.start("d1").endpoint]
    wrong: list[Any] = []
    with connect(on) as session:
        session.install(made.path)
        warm(session, {"x": X})

        def caller(number: int) -> None:
            try:
                x = X * (number + 1)
                want = expected(made, x)
                for _ in range(40):
                    outputs = session.run({"x": x}, deadline=60.0).outputs
                    if not all(np.allclose(outputs[n], want[n], atol=1e-4) for n in want):
                        wrong.append(number)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=caller, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        assert not wrong
        until(lambda: status(on[0]).runs >= 122)


# -- nothing is left behind ------------------------------------------------------------------


def test_a_thousand_requests_leave_nothing_behind(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    process = psutil.Process(daemon.process.pid)
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        for _ in range(20):
            session.run({"x": X})
        data = link(session).data

        def counts() -> tuple[int, ...]:
            return (
                process.num_fds(),
                psutil.Process().num_fds(),
                reserved(daemon),
                len(data._regions),
                data.stats().outstanding,
            )

        time.sleep(0.5)  # an answer comes before the memory of its request is let go
        idle, threads = reserved(daemon), (process.num_threads(), threading.active_count())
        before = counts()
        for _ in range(1000):
            session.run({"x": X})
        until(lambda: reserved(daemon) == idle)
        # Fewer is right as well: an earlier test's descriptor may have been closed meanwhile.
        try:
            until(lambda: all(a <= b for a, b in zip(counts(), before, strict=True)))
        except AssertionError:
            raise AssertionError(f"{before} grew to {counts()}") from None
        # gRPC starts threads for its calls as it likes, up to a bound: not one a request.
        assert process.num_threads() < threads[0] + 20
        assert threading.active_count() < threads[1] + 5
        until(lambda: status(daemon.endpoint).runs == 1020)
    until(lambda: held(daemon) == (0, 0))


def test_idle_channels_are_few(daemons: Daemons, tmp_path: Path) -> None:
    plans = [two_layers(f, hidden=32 + i) for i, f in enumerate(folders(tmp_path, 3))]
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        for made in plans:
            session.install(made.path)
            for rows in range(1, 9):
                warm(session, {"x": np.ones((rows, 16), np.float32)})
        opened = sum(len(pair[1]._calls._idle) for pair in session._plans.values())
        assert opened <= MAX_IDLE * len(plans)
        session.run({"x": X})
    until(lambda: held(daemon) == (0, 0))


def test_idle_channels_give_their_memory_to_others(daemons: Daemons, tmp_path: Path) -> None:
    large = slow(tmp_path, ops=10)
    needs = large.plan.devices["d0"].needs
    daemon = daemons.start(device=f"cpu:memory={(needs + needs // 3) >> 10}KiB")
    with connect(daemon.endpoint) as one, connect(daemon.endpoint) as two:
        for session in (one, two):
            session.install(large.path)
        for _ in range(4):
            for session in (one, two):
                for _ in range(3):
                    assert np.array_equal(session.run({"x": EYE}).outputs["y"], EYE)
    until(lambda: held(daemon) == (0, 0))


def test_a_plan_installed_again_while_channels_are_open(daemons: Daemons, tmp_path: Path) -> None:
    one, two = (two_layers(f, hidden=32 + 16 * i) for i, f in enumerate(folders(tmp_path, 2)))
    with connect(daemons.start().endpoint) as session:
        first = session.install(one.path)
        warm(session, {"x": X})
        second = session.install(two.path)
        warm(session, {"x": X})
        assert session.install(one.path) == first
        for plan, made in ((first, one), (second, two), (first, one)):
            outputs = session.run({"x": X}, plan=plan).outputs
            assert np.allclose(outputs["y"], expected(made, X)["y"], atol=1e-5)
