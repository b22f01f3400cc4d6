"""genied as a process: its socket, its state, who may connect, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie.client import connect
from genie.client.admin import cancel, status
from genie.client.channel import Channel, Credentials
from genie.client.opening import hello
from genie_runtime import auth, endpoint
from genie_runtime.negotiation import replay
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from genie_schemas.verify import FEATURES
from genie_schemas.versions import CONTROL_PROTOCOL
from tests.daemons import Daemon, Daemons, until
from tests.plans_by_hand import expected, slow, two_layers
from tests.runtime.test_faults import held, in_mid_run

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)


def ended(daemon: Daemon, code: int, *words: str) -> None:
    assert daemon.process.wait(20) == code, daemon.log
    for word in words:
        assert word in daemon.log
    assert "Traceback" not in daemon.log


def test_serves_and_drains(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    path = Path(daemon.endpoint.removeprefix("unix://"))
    for name in (path, Path(f"{path}.data")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o600
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        result = session.run({"x": X})
    found = status(daemon.endpoint)
    assert (found.runs, found.plans, found.sessions) == (1, 1, 0)
    assert found.telemetry["attempts"] == 1
    assert found.telemetry["bytes_in"] >= X.nbytes
    assert [d.kind for d in found.devices] == ["cpu"]
    assert found.devices[0].reserved_bytes == 0
    wanted = _one_thread(lambda: expected(made, X))
    assert all(result.outputs[n].tobytes() == wanted[n].tobytes() for n in wanted)
    assert daemon.stop() == 0
    assert not path.exists()
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    assert [line["event"] for line in lines if line["logger"] == "genied"] == [
        *("listening", "draining", "drained")
    ]
    with pytest.raises(GenieError) as caught:
        connect(daemon.endpoint)
    assert caught.value.exit_code == 5


def _one_thread(call: Any) -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def test_only_what_is_missing_travels(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path, hidden=4096)
    size = sum(w.nbytes for w in made.weights.values())
    daemon = daemons.start()
    sent = []
    for _ in range(2):
        with connect(daemon.endpoint) as session:
            session.install(made.path)
            session.run({"x": X})
            sent.append(session.traffic()["sent"])
    assert sent[0] > size
    assert sent[1] < 8192 + X.nbytes


def test_a_changed_weights_file_is_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    daemon = daemons.start()
    for where in (None, daemon.endpoint):
        with connect(where) as session, pytest.raises(GenieError) as caught:
            session.install(made.path)
        assert caught.value.code == "GEN0425"
        assert caught.value.exit_code == 4


def test_runs_over_the_same_daemons_in_opposite_order_do_not_block(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = two_layers(tmp_path, devices=2, hidden=512)
    ends = [daemons.start(f"d{n}").endpoint for n in (0, 1)]
    results: list[Any] = []

    def many(order: list[str]) -> None:
        with connect(order) as session:
            session.install(made.path)
            for _ in range(10):
                results.append(session.run({"x": X}, deadline=60.0).outputs["y"].tobytes())

    threads = [threading.Thread(target=many, args=(order,)) for order in (ends, ends[::-1]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 40
    assert len(set(results)) == 1


def test_a_plan_too_large_for_the_device_is_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=2)
    daemon = daemons.start(device="cpu:memory=1MiB")
    assert [d.memory_bytes for d in status(daemon.endpoint).devices] == [1 << 20]
    for session in (connect(daemon.endpoint), connect(devices=["cpu:memory=1MiB"])):
        with session, pytest.raises(GenieError) as caught:
            session.install(made.path)
        assert caught.value.code == "GEN0412"
        assert "MiB" in caught.value.message


def test_a_run_waits_for_memory_that_another_holds(tmp_path: Path, daemons: Daemons) -> None:
    made = slow(tmp_path, ops=100)
    needs = made.plan.devices["d0"].needs
    tight = needs + (1 << 20)  # room for one run at a time
    daemon = daemons.start(device=f"cpu:memory={tight}B")
    x = np.eye(512, dtype=np.float32)
    outcomes: list[str] = []

    def one(deadline: float) -> None:
        with connect(daemon.endpoint) as session:
            session.install(made.path)
            try:
                session.run({"x": x}, deadline=deadline)
                outcomes.append("done")
            except GenieError as error:
                outcomes.append(error.code)

    threads = [threading.Thread(target=one, args=(120.0,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    assert outcomes == ["done"] * 3
    found = status(daemon.endpoint)
    assert found.telemetry["peak_bytes"] <= tight


def test_a_run_is_cancelled_by_its_id(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=2000)
    daemon = daemons.start()
    with pytest.raises(GenieError) as caught:
        cancel("run-1", daemon.endpoint)
    assert caught.value.code == "GEN0416"
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        in_mid_run(daemon, lambda: print(cancel("run-1", daemon.endpoint)))
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.eye(512, dtype=np.float32)}, run_id="run-1")
        assert caught.value.code == "GEN0415"
        until(lambda: held(daemon)[1] == 0)
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.eye(512, dtype=np.float32)}, run_id="run-2", deadline=0.7)
        assert caught.value.exit_code == 7
        until(lambda: held(daemon)[1] == 0)


def test_a_second_caller_of_a_run_id_waits_for_the_first(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=200)
    daemon = daemons.start()
    x = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    results: list[Any] = []

    def ask() -> None:
        with connect(daemon.endpoint) as session:
            session.install(made.path)
            results.append(session.run({"x": x}, run_id="run-1", deadline=120.0))

    first = threading.Thread(target=ask)
    second = in_mid_run(daemon, ask)
    first.start()
    first.join(120)
    second.join(120)
    assert sorted(r.replayed for r in results) == [False, True]
    assert results[0].outputs["y"].tobytes() == results[1].outputs["y"].tobytes()
    assert status(daemon.endpoint).runs == 1


def test_sigterm_lets_a_run_finish_and_takes_no_new_one(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=200)
    daemon = daemons.start()
    refused: list[str] = []

    def terminate() -> None:
        daemon.process.terminate()
        until(lambda: '"draining"' in daemon.log)
        try:
            connect(daemon.endpoint).close()
        except GenieError as error:
            refused.append(error.code)

    with connect(daemon.endpoint) as session:
        session.install(made.path)
        thread = in_mid_run(daemon, terminate)
        result = session.run({"x": np.eye(512, dtype=np.float32)})
        assert result.attempts == 1
        thread.join(20)
    assert refused == ["GEN0510"]
    ended(daemon, 0, '"drained"')


# -- places and addresses --------------------------------------------------------------------


def test_a_state_directory_has_one_daemon(daemons: Daemons) -> None:
    first = daemons.start("d0")
    other = f"unix://{daemons.folder}/other.sock"
    ended(daemons.start("d0", listen=other, wait=False), 1, "GEN0505")
    assert status(first.endpoint).sessions == 0


def test_an_address_has_one_daemon_and_a_dead_ones_is_taken_over(daemons: Daemons) -> None:
    first = daemons.start("d0")
    second = daemons.start("d1", listen=first.endpoint, wait=False)
    ended(second, 1, "GEN0504")
    assert status(first.endpoint).sessions == 0
    first.kill()
    assert Path(first.endpoint.removeprefix("unix://")).exists()
    third = daemons.start("d2", listen=first.endpoint)
    assert status(third.endpoint).boot_id


def test_something_else_at_the_address_is_left_alone(daemons: Daemons) -> None:
    path = daemons.folder / "file.sock"
    path.write_text("precious")
    ended(daemons.start(listen=f"unix://{path}", wait=False), 1, "GEN0504")
    assert path.read_text() == "precious"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemons.folder / "live.sock"))
        other.listen(1)
        live = daemons.start("d1", listen=f"unix://{daemons.folder}/live.sock", wait=False)
        ended(live, 1, "GEN0504", "a process listens there")


def test_a_folder_that_others_may_write_is_refused(daemons: Daemons) -> None:
    folder = daemons.folder / "open"
    folder.mkdir()
    folder.chmod(0o777)
    ended(daemons.start(listen=f"unix://{folder}/d.sock", wait=False), 6, "GEN0525")
    folder.chmod(0o1777)
    daemons.start("d1", listen=f"unix://{folder}/d.sock")


@pytest.mark.parametrize(
    "address",
    [*("0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0", "[::ffff:192.0.2.1]:0"), "example.org:7000"],
)
@pytest.mark.parametrize("option", ["--listen", "--peer-listen"])
def test_a_public_address_without_tls_and_token_is_refused_at_once(
    daemons: Daemons, address: str, option: str
) -> None:
    argv = [] if option == "--listen" else [option, address]
    listen = address if option == "--listen" else None
    ended(daemons.start("d0", *argv, listen=listen, wait=False), 6, "GEN0520", "genie auth init")


@pytest.mark.parametrize(
    ("argv", "listen", "code", "word"),
    [
        ([], "nonsense", 2, "GEN0514"),
        ([], "unix://relative.sock", 2, "GEN0514"),
        ([], "unix:///" + "x" * 120, 2, "GEN0514"),
        (["--device", "gpu"], None, 2, "GEN0512"),
        (["--device", "cuda:31"], None, 1, "GEN0513"),
        (["--ledger-size", "many"], None, 2, "GEN0515"),
        (["--state-dir", "/proc/none"], None, 1, "GEN0506"),
        (["--no-such-option"], None, 2, "No such option"),
    ],
)
def test_options_that_cannot_be(
    daemons: Daemons, argv: list[str], listen: str | None, code: int, word: str
) -> None:
    ended(daemons.start("d0", *argv, listen=listen, wait=False), code, word)


# -- who may connect -------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_loopback_asks_for_the_users_token(daemons: Daemons, home: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    daemon = daemons.start(listen=address)
    token = home / "config" / "genie" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert status(address).sessions == 0
    made = two_layers(home)
    with connect(address) as session:
        session.install(made.path)
        result = session.run({"x": X})
        assert result.transports == {"client->d0": "tcp"}
    wrong = home / "wrong"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    for call in (lambda: connect(address, token_file=wrong), lambda: status(address, None, wrong)):
        with pytest.raises(GenieError) as caught:
            call()
        assert caught.value.code == "GEN0521"
        assert caught.value.exit_code == 6
    token.unlink()
    with pytest.raises(GenieError) as caught:
        connect(address)
    assert caught.value.code == "GEN0521"
    wrong.chmod(0o644)
    with pytest.raises(GenieError) as caught:
        connect(address, token_file=wrong)
    assert caught.value.code == "GEN0523"
    assert "0" * 64 not in daemon.log


def test_two_daemons_with_tls(daemons: Daemons, tmp_path: Path) -> None:
    folder, strange = tmp_path / "auth", tmp_path / "strange"
    auth.init(folder, ["127.0.0.1"])
    auth.init(strange, ["127.0.0.1"])
    options = ["--tls-dir", str(folder), "--token-file", str(folder / "token")]
    ports = [free_port(), free_port()]
    made = two_layers(tmp_path, devices=2)
    ends = []
    for n, port in enumerate(ports):
        listen = f"0.0.0.0:{port}" if n else f"127.0.0.1:{port}"
        peers = ["--peer-listen", "127.0.0.1:0"] if n else []
        daemons.start(f"d{n}", *options, *peers, listen=listen)
        ends.append(f"127.0.0.1:{port}")
    token = folder / "token"
    with connect(ends, tls_dir=folder, token_file=token) as session:
        session.install(made.path)
        result = session.run({"x": X}, run_id="run-1")
        assert set(result.transports.values()) == {"tcp"}
    wanted = _one_thread(lambda: expected(made, X))
    assert result.outputs["y"].tobytes() == wanted["y"].tobytes()
    # Another CA's client, no TLS at all, an older TLS: none gets in.
    for where in (strange, None):
        with pytest.raises(GenieError) as caught:
            connect(ends[0], tls_dir=where, token_file=token)
        assert caught.value.code == "GEN0522"
        assert caught.value.exit_code == 6
    with pytest.raises(GenieError) as caught:
        connect(ends[0], tls_dir=folder, token_file=strange / "token")
    assert caught.value.code == "GEN0521"
    assert _tls(folder, ports[0], "TLSv1.3")
    assert not _tls(folder, ports[0], "TLSv1.2")


def _tls(folder: Path, port: int, version: str) -> bool:
    """Whether a client with our certificate gets a connection with this version of TLS alone."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    wanted = ssl.TLSVersion.TLSv1_3 if version == "TLSv1.3" else ssl.TLSVersion.TLSv1_2
    context.minimum_version = context.maximum_version = wanted
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as secured:
                return secured.version() == version
        except (ssl.SSLError, ConnectionResetError):
            return False


# -- the protocol ----------------------------------------------------------------------------


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
