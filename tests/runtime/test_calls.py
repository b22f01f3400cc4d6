"""Invocations over the data plane: what travels, what is executed, and every way of failing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from genie.client import connect
from genie.client.admin import cancel, status
from genie.client.calls import MAX_IDLE
from genie.client.inputs import check_inputs
from genie.client.link import LoadedPlan, RunSpec
from genie.client.opening import hello
from genie.client.remote import RemoteLink
from genie.client.remote_call import RemoteCall
from genie.client.session import Session
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from genie_transport import DMAHandle
from tests.daemons import Daemon, Daemons, until
from tests.plans_by_hand import expected, slow, two_layers
from tests.runtime.test_faults import held, in_mid_run

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)
EYE = np.eye(512, dtype=np.float32)


def link(session: Session) -> RemoteLink:
    found = session.links[0]
    assert isinstance(found, RemoteLink)
    return found


@contextmanager
def control_calls(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the control messages of every node of a session by name."""
    counts: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for node in session.links:
            assert isinstance(node, RemoteLink)
            inner = node.channel.call

            def call(name: str, *args: Any, inner: Any = inner, **options: Any) -> Any:
                counts[name] += 1
                return inner(name, *args, **options)

            patch.setattr(node.channel, "call", call)
        yield counts


def warm(session: Session, inputs: dict[str, Any]) -> None:
    """The first run goes over the control connection, the second one opens a channel."""
    for _ in range(2):
        session.run(inputs)


def folders(parent: Path, count: int) -> list[Path]:
    """Plans of one name need a folder each."""
    found = [parent / str(i) for i in range(count)]
    for folder in found:
        folder.mkdir()
    return found


def reserved(daemon: Daemon) -> int:
    return sum(device.reserved_bytes for device in status(daemon.endpoint).devices)


# -- what travels ----------------------------------------------------------------------------


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
        assert status(on[0]).runs >= 122


# -- nothing is left behind --------------------------------------------------------------------


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

        idle, threads = reserved(daemon), (process.num_threads(), threading.active_count())
        before = counts()
        for _ in range(1000):
            session.run({"x": X})
        until(lambda: reserved(daemon) == idle)
        until(lambda: counts() == before)
        # gRPC starts threads for its calls as it likes, up to a bound: not one a request.
        assert process.num_threads() < threads[0] + 20
        assert threading.active_count() < threads[1] + 5
        assert status(daemon.endpoint).runs == 1020
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


# -- failures ----------------------------------------------------------------------------------


def test_a_deadline_that_has_passed(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        warm(session, {"x": X})
        ran = status(daemon.endpoint).runs
        with pytest.raises(GenieError) as caught:
            session.run({"x": X}, deadline=0.0)
        assert caught.value.code == "GEN0414"
        assert status(daemon.endpoint).runs == ran
        assert session.run({"x": X}).attempts == 1


def test_a_deadline_in_mid_request(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=100)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        warm(session, {"x": EYE})
        begun = time.monotonic()
        with pytest.raises(GenieError) as caught:
            session.run({"x": EYE}, deadline=0.05)
        assert caught.value.code == "GEN0414"
        assert time.monotonic() - begun < 5.0
        until(lambda: held(daemon) == (1, 0))
        warm(session, {"x": EYE})
        assert session.run({"x": EYE}).attempts == 1


def test_a_request_is_cancelled_by_its_id(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=400)
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
    made = slow(tmp_path, ops=400)
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
        begun = time.monotonic()
        with pytest.raises(GenieError) as caught:
            session.run({"x": X})
        assert caught.value.exit_code == 5
        assert time.monotonic() - begun < 5.0
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
        until(lambda: len(status(daemon.endpoint).active) == 1)
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
    made = slow(tmp_path, ops=200)
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
    made = slow(tmp_path, ops=200)
    daemon = daemons.start()
    with connect(daemon.endpoint) as busy, connect(daemon.endpoint) as session:
        for each in (busy, session):
            each.install(made.path)
        warm(session, {"x": EYE})
        worker = threading.Thread(target=lambda: busy.run({"x": EYE}))
        worker.start()
        until(lambda: len(status(daemon.endpoint).active) == 1)
        daemon.process.terminate()
        until(lambda: '"draining"' in daemon.log)
        with pytest.raises(GenieError) as caught:
            session.run({"x": EYE})
        assert caught.value.code == "GEN0510"
        worker.join(60)
    assert daemon.process.wait(30) == 0


# -- liars -------------------------------------------------------------------------------------


def channel(session: Session, loaded: LoadedPlan, inputs: dict[str, Any]) -> RemoteCall:
    return RemoteCall(link(session), spec_of(loaded, inputs), {})


def spec_of(loaded: LoadedPlan, inputs: dict[str, Any], run_id: str = "run-x") -> RunSpec:
    checked = check_inputs(loaded.installed.plan, "forward", inputs)
    return RunSpec(loaded, "forward", run_id, False, None, checked)


def _replay(call: RemoteCall) -> None:
    call._sequence -= 1


def _skip(call: RemoteCall) -> None:
    call._sequence += 1


def _elsewhere(call: RemoteCall) -> None:
    call._channel = os.urandom(16)


@pytest.mark.parametrize("lie", [_replay, _skip, _elsewhere])
def test_requests_out_of_turn_are_not_executed(
    daemons: Daemons, tmp_path: Path, lie: Callable[[RemoteCall], None]
) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        loaded = session.install(made.path)
        call = channel(session, loaded, {"x": X})
        spec = spec_of(loaded, {"x": X})
        call.start(spec, 10.0)
        first = call.wait(10.0)
        assert first is not None
        assert first.report is not None
        # The reply may overtake the count of the run that it answers.
        until(lambda: status(daemon.endpoint).runs == 1)
        ran = status(daemon.endpoint).runs
        sequence = call._sequence
        lie(call)
        call.start(spec, 10.0)
        call._sequence = sequence + 1  # the daemon answers the request that was due
        found = call.wait(10.0)
        assert found is not None
        assert found.error is not None
        assert found.error.code == "GEN0430"
        assert found.last
        assert status(daemon.endpoint).runs == ran
        until(lambda: reserved(daemon) == 0)
        call.close()


@pytest.mark.parametrize("run_id", ["", "-x", "a\nb", "x" * 129])
def test_run_ids_that_are_none_are_refused(daemons: Daemons, tmp_path: Path, run_id: str) -> None:
    made = two_layers(tmp_path)
    with connect(daemons.start().endpoint) as session:
        loaded = session.install(made.path)
        call = channel(session, loaded, {"x": X})
        call.start(spec_of(loaded, {"x": X}, run_id), 10.0)
        found = call.wait(10.0)
        assert found is not None
        assert found.error is not None
        assert found.error.code == "GEN0430"
        call.close()


def test_forged_handles_and_sizes_are_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        loaded = session.install(made.path)
        node = link(session)
        handle = node.data.register(bytearray(64))
        good: dict[str, Any] = {
            "session": node.session,
            "plan_digest": loaded.digest,
            "entrypoint": "forward",
            "dims": {"batch": 3},
            "links": {},
            "reply": handle.to_json(),
            "outputs": {},
        }
        for changes, code in (
            ({}, "GEN0430"),  # 64 bytes are no room for a reply
            ({"reply": {**handle.to_json(), "length": 1 << 40}}, "GEN0430"),
            ({"outputs": {"y": handle.to_json()}}, "GEN0430"),
            ({"dims": {"batch": 9}}, "GEN0404"),
            ({"dims": {}}, "GEN0404"),
            ({"entrypoint": "backward"}, "GEN0407"),
            ({"links": {"h/transfer": "0" * 32}}, "GEN0418"),
        ):
            with pytest.raises(GenieError) as caught:
                node.channel.call(
                    "OpenCall", m.OpenCallRequest(**{**good, **changes}), m.OpenCallReply
                )
            assert caught.value.code == code
            assert reserved(daemon) == 0
        unknown = m.LinkCallRequest(session=node.session, call="0" * 32, outgoing={})
        with pytest.raises(GenieError) as caught:
            node.channel.call("LinkCall", unknown, m.Empty)
        assert caught.value.code == "GEN0431"
        closing = m.CallRequestId(session=node.session, call="0" * 32)
        node.channel.call("CloseCall", closing, m.Empty)


def test_a_reply_that_cannot_be_sent_ends_the_request(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        loaded = session.install(made.path)
        call = channel(session, loaded, {"x": X})
        node = link(session)
        gone: DMAHandle = call._reply_handle
        node.data.deregister(gone)
        call._mine.remove(gone)
        head = node.data.post(call._source, call._target)
        head.result(10.0)  # without a valid record: refused, and the refusal cannot be delivered
        until(lambda: reserved(daemon) == 0)
        call.close()
        warm(session, {"x": X})
        assert session.run({"x": X}).attempts == 1
