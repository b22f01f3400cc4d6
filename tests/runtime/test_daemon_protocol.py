"""genied's control messages: what is negotiated, refused, and told to others."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from genie.client import connect
from genie.client.channel import Channel, Credentials
from genie.client.opening import hello
from genie_runtime import endpoint
from genie_runtime.negotiation import replay
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from genie_schemas.verify import FEATURES
from genie_schemas.versions import CONTROL_PROTOCOL
from tests.daemons import Daemon, Daemons
from tests.plans_by_hand import two_layers
from tests.runtime.support import X


def channel(daemon: Daemon) -> Channel:
    return Channel(endpoint.parse(daemon.endpoint), Credentials())


def test_what_is_negotiated_is_logged_and_replays(daemons: Daemons) -> None:
    daemon = daemons.start()
    control = channel(daemon)
    greeting = hello()
    newer = greeting.model_copy(
        update={"protocol": "1.7", "features": [*FEATURES, "compute.quantum"]}
    )
    reply = control.call("Open", newer, m.OpenReply)
    assert reply.protocol == CONTROL_PROTOCOL
    assert reply.features == list(FEATURES)
    for changes in ({"protocol": "9.0"}, {"formats": ["9.0"]}):
        with pytest.raises(GenieError) as caught:
            control.call("Open", greeting.model_copy(update=changes), m.OpenReply)
        assert caught.value.code == "GEN0503"
        assert caught.value.exit_code == 8
        assert "9.0" in caught.value.message
        assert ("1.0" if "formats" in changes else CONTROL_PROTOCOL) in caught.value.message
    control.close()
    lines = list(replay(daemon.state_dir / "negotiations.jsonl"))
    assert [line.same for line in lines] == [True] * 3
    assert lines[0].recorded["answer"]["features"] == list(FEATURES)
    assert lines[1].recorded == {"refused": "GEN0503"}


def test_unknown_sessions_runs_and_forged_handles_are_refused(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    control = channel(daemon)
    strange = "0" * 32
    with pytest.raises(GenieError) as caught:
        control.call("Wait", m.WaitRequest(session=strange, run=strange, timeout_ms=0), m.WaitReply)
    assert caught.value.code == "GEN0508"
    mine = control.call("Open", hello(), m.OpenReply)
    asked = m.WaitRequest(session=mine.session, run=strange, timeout_ms=0)
    with pytest.raises(GenieError) as caught:
        control.call("Wait", asked, m.WaitReply)
    assert caught.value.code == "GEN0416"
    plan = m.PlanRequest(session=mine.session, plan_digest=made.plan.plan_digest)
    with pytest.raises(GenieError) as caught:
        control.call("Missing", plan, m.MissingReply)
    assert caught.value.code == "GEN0426"
    install = m.InstallRequest(
        session=mine.session,
        plan_digest="sha256:" + "0" * 64,
        devices=["d0"],
        plan=made.path.read_text(),
    )
    with pytest.raises(GenieError) as caught:
        control.call("Install", install, m.InstallReply)
    assert caught.value.code == "GEN0304"
    cut = install.model_copy(update={"plan": made.path.read_text()[:500]})
    with pytest.raises(GenieError) as caught:
        control.call("Install", cut, m.InstallReply)
    assert caught.value.exit_code == 4
    control.close()


def test_messages_that_are_none_are_refused(daemons: Daemons) -> None:
    import grpc

    daemon = daemons.start()
    target = endpoint.parse(daemon.endpoint).grpc_target
    with grpc.insecure_channel(target) as raw:
        call = raw.unary_unary(f"/{m.SERVICE}/Status", None, None)
        for data in (b"", b"{", b'{"a":1}', b'{"a":1,"a":1}', b"\xff", b"[" * 100_000):
            with pytest.raises(GenieError) as caught:
                m.decode_reply(m.StatusReply, call(data, timeout=10))
            assert caught.value.code == "GEN0509"
        assert m.decode_reply(m.StatusReply, call(b"{}", timeout=10)).sessions == 0
        with pytest.raises(grpc.RpcError) as failed:
            raw.unary_unary("/genie.v1.Control/NoSuch", None, None)(b"{}", timeout=10)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_is_told_as_grpc_does(daemons: Daemons) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    daemon = daemons.start()
    with grpc.insecure_channel(endpoint.parse(daemon.endpoint).grpc_target) as raw:
        stub = health_pb2_grpc.HealthStub(raw)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_systemd_hears_of_it(daemons: Daemons) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(daemons.folder / "notify"))
        manager.settimeout(20)
        daemon = daemons.start(
            env={"NOTIFY_SOCKET": str(daemons.folder / "notify"), "WATCHDOG_USEC": "100000"}
        )
        assert manager.recv(64) == b"READY=1"
        assert manager.recv(64) == b"WATCHDOG=1"
        daemon.process.send_signal(signal.SIGINT)
        while (state := manager.recv(64)) == b"WATCHDOG=1":
            pass
        assert state == b"STOPPING=1"
    assert daemon.process.wait(20) == 0


def test_the_daemon_does_not_import_torch(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        session.run({"x": X})
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "torch" not in maps
    assert any("torch" in Path(f"/proc/{w.pid}/maps").read_text() for w in daemon.workers())
    assert os.getpid() != daemon.process.pid
