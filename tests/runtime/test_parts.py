"""The parts of a node by themselves: budget, binding, credentials, devices, logs, messages."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_runtime import auth, devices, logs, secrets_files
from genie_runtime.budget import Budget
from genie_runtime.config import Limits
from genie_runtime.devices import parse_devices, parse_size
from genie_runtime.negotiation import replay
from genie_runtime.plans import bind, install
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import DeviceSpec
from genie_runtime.sdnotify import notify, watchdog_interval
from genie_runtime.store import ConstantStore
from genie_runtime.telemetry import RetryBudget, Telemetry
from genie_schemas import constants
from genie_schemas import messages as m
from genie_schemas.errors import GenieError, GenieErrors, Place
from tests.plans_by_hand import two_layers

CPU = DeviceSpec("c0", "cpu", 0, 100)
CUDA = DeviceSpec("g0", "cuda", 0, 1000)


# -- budget ----------------------------------------------------------------------------------


def later() -> float:
    return time.monotonic() + 20.0


def test_reservations_are_all_or_nothing() -> None:
    budget = Budget({"c0": CPU, "g0": CUDA})
    held = budget.reserve({"c0": 60}, later())
    with pytest.raises(GenieError) as caught:
        budget.reserve({"c0": 50, "g0": 10}, time.monotonic())
    assert (caught.value.code, caught.value.exit_code) == ("GEN0413", 7)
    assert budget.usage("g0")[0] == 0
    with pytest.raises(GenieError) as caught:
        budget.reserve({"c0": 101}, later())
    assert caught.value.code == "GEN0412"
    budget.release(held)
    budget.release(held)
    assert budget.usage("c0") == (0, 0, 60)


def test_waiting_reservations_are_served_in_turn_and_can_be_ended() -> None:
    budget = Budget({"c0": CPU})
    held = budget.reserve({"c0": 80}, later())
    served: list[int] = []

    def want(n: int) -> None:
        mine = budget.reserve({"c0": 60}, later())
        served.append(n)
        budget.release(mine)

    threads = [threading.Thread(target=want, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    stop = GenieError("GEN0508", "ended")
    with pytest.raises(GenieError) as caught:
        budget.reserve({"c0": 60}, later(), lambda: stop)
    assert caught.value is stop
    budget.release(held)
    for thread in threads:
        thread.join(20)
    assert served == [0, 1, 2]


def test_constants_count_once_and_make_room_when_unused() -> None:
    dropped: list[str] = []

    def evict(device: str) -> bool:
        if dropped:
            return False
        dropped.append(device)
        budget.drop_constants(device, 70)
        return True

    budget = Budget({"c0": CPU}, evict)
    budget.hold_constants("c0", 70)
    budget.release(budget.reserve({"c0": 50}, later()))
    assert dropped == ["c0"]
    held = budget.reserve({"c0": 50}, later())
    with pytest.raises(GenieError) as caught:
        budget.hold_constants("c0", 60)
    assert caught.value.code == "GEN0413"
    budget.release(held)


def test_the_retry_budget_ends_a_storm() -> None:
    retries = RetryBudget(tokens=2, refill=0.5)
    assert [retries.take() for _ in range(3)] == [True, True, False]
    retries.succeeded()
    assert not retries.take()
    retries.succeeded()
    assert retries.take()


def test_telemetry_tells_percentiles() -> None:
    telemetry = Telemetry()
    assert telemetry.snapshot()["overhead_p95_us"] == 0
    for n in range(100):
        telemetry.overhead(n)
    found = telemetry.snapshot()
    assert (found["overhead_p50_us"], found["overhead_p95_us"]) == (50, 95)


# -- constants -------------------------------------------------------------------------------


def store(capacity: int = 10_000) -> tuple[ConstantStore, dict[str, ArenaPool], Budget]:
    specs = {n: DeviceSpec(n, "cpu", 0, capacity) for n in ("c0", "c1")}
    pools = {n: ArenaPool(1 << 20) for n in specs}
    budget = Budget(specs)
    return ConstantStore(pools, budget, keep=60.0), pools, budget


def test_a_constant_is_kept_while_anybody_needs_it() -> None:
    kept, pools, budget = store()
    data = memoryview(b"x" * 1000)
    digest = constants.digest(data)
    kept.put("s1", "c0", digest, data)
    kept.put("s2", "c0", digest, data)
    assert budget.usage("c0")[1] == 1000
    assert kept.missing("s1", "c1", {digest: 1000}) == []  # copied over from c0
    regions = kept.pin("c0", [digest])
    assert regions is not None
    assert bytes(pools["c0"].view(regions[digest])) == bytes(data)
    assert not kept.drop_unclaimed("c0")
    kept.abandon("s1")
    kept.abandon("s2")
    assert not kept.drop_unclaimed("c0")
    kept.unpin("c0", [digest])
    assert not kept.have("c0", digest)
    assert kept.drop_unclaimed("c1")
    assert budget.usage("c0")[:2] == budget.usage("c1")[:2] == (0, 0)
    assert pools["c0"].stats().regions == pools["c1"].stats().regions == 0
    assert kept.pin("c0", [digest]) is None


def test_a_constant_that_is_not_what_it_says_is_not_kept() -> None:
    kept, pools, budget = store()
    with pytest.raises(GenieError) as caught:
        kept.put("s1", "c0", constants.digest(b"other"), memoryview(b"bytes"))
    assert caught.value.code == "GEN0425"
    assert budget.usage("c0")[1] == 0
    assert pools["c0"].stats().regions == 0
    with pytest.raises(GenieError) as caught:
        kept.put("s1", "c0", constants.digest(bytes(20_000)), memoryview(bytes(20_000)))
    assert caught.value.code == "GEN0412"


def test_uploads_that_nobody_goes_on_with_are_swept() -> None:
    specs = {"c0": DeviceSpec("c0", "cpu", 0, 1 << 24)}
    pools = {"c0": ArenaPool(1 << 25)}
    budget = Budget(specs)
    data = bytes(constants.CHUNK + 1)
    chunks = constants.chunk_digests(data)
    digest = constants.combine(chunks, len(data))
    for keep, left in ((-1.0, 0), (60.0, len(data))):
        kept = ConstantStore(pools, budget, keep)
        upload = kept.begin("s1", "c0", digest, len(data), chunks)
        assert kept.begin("s1", "c0", digest, len(data), chunks) is upload
        kept.view(upload, 1)[:] = data[constants.CHUNK :]
        assert kept.check(upload, 1)
        assert not kept.complete(upload)
        kept.abandon("s1")
        assert kept.orphan(digest) == [0]
        kept.sweep()
        assert budget.usage("c0")[1] == left
    assert kept.drop_unclaimed("c0")
    assert budget.usage("c0")[1] == 0


# -- binding ---------------------------------------------------------------------------------


def bound(tmp_path: Path, kinds: list[str], offered: list[DeviceSpec]) -> dict[str, str]:
    plan = two_layers(tmp_path, devices=2).plan
    found = {
        name: device.model_copy(update={"kind": kind})
        for (name, device), kind in zip(plan.devices.items(), kinds, strict=True)
    }
    plan = plan.model_copy(update={"devices": found})
    return bind(plan, ["d0", "d1"], offered, ("compute.aten",))


def test_cpus_are_shared_and_gpus_are_not(tmp_path: Path) -> None:
    assert bound(tmp_path, ["cpu", "cpu"], [CPU]) == {"d0": "c0", "d1": "c0"}
    assert bound(tmp_path, ["any", "cuda"], [CPU, CUDA]) == {"d0": "c0", "d1": "g0"}
    assert bound(tmp_path, ["cuda", "any"], [CPU, CUDA]) == {"d0": "g0", "d1": "c0"}
    for kinds, offered in ((["cuda", "cuda"], [CPU, CUDA]), (["cpu", "any"], [CUDA])):
        with pytest.raises(GenieError) as caught:
            bound(tmp_path, kinds, offered)
        assert caught.value.code == "GEN0420"


def test_features_and_devices_that_are_not_there(tmp_path: Path) -> None:
    plan = two_layers(tmp_path).plan
    with pytest.raises(GenieError) as caught:
        bind(plan, ["d0"], [CPU], ())
    assert (caught.value.code, caught.value.exit_code) == ("GEN0421", 8)
    with pytest.raises(GenieError) as caught:
        bind(plan, ["d7"], [CPU], ("compute.aten",))
    assert caught.value.code == "GEN0422"


def test_plans_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    text, digest = made.path.read_text(), made.plan.plan_digest
    for limits in (Limits(plan_bytes=100), Limits(plan_ops=2)):
        with pytest.raises(GenieError) as caught:
            install(text, digest, limits)
        assert caught.value.code == "GEN0511"


# -- devices ---------------------------------------------------------------------------------


def test_device_specifications(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [devices.Accelerator(0, "GPU", 80 << 30), devices.Accelerator(1, "GPU", 40 << 30)]
    monkeypatch.setattr(devices, "accelerators", lambda: gpus)
    every = parse_devices([])
    assert [(d.id, d.kind, d.index) for d in every] == [
        *(("d0", "cpu", 0), ("d1", "cuda", 0), ("d2", "cuda", 1))
    ]
    some = parse_devices(["cuda:1", "cpu:memory=2GiB", "cuda:0:memory=20GiB", "cuda"])
    assert [(d.kind, d.index) for d in some] == [
        *(("cuda", 1), ("cpu", 0), ("cuda", 0), ("cuda", 0))
    ]
    assert [d.memory_bytes for d in some[1:3]] == [2 << 30, 20 << 30]
    for text in ("", "gpu", "cpu:memory=2", "cpu:memory=0B", "cuda:x", "cpu:memory=2GiB:"):
        with pytest.raises(GenieError) as caught:
            parse_devices([text])
        assert caught.value.code == "GEN0512"
    with pytest.raises(GenieError) as caught:
        parse_devices(["cuda:2"])
    assert caught.value.code == "GEN0513"
    assert "cuda:0, cuda:1" in (caught.value.cause or "")


def test_the_machine_is_asked_without_torch() -> None:
    assert devices.machine_memory() > 1 << 26
    assert all(found.memory_bytes > 0 for found in devices.accelerators())


def test_sizes() -> None:
    assert (parse_size("3KiB"), parse_size("1 TiB")) == (3072, 1 << 40)
    for text in ("", "1", "1.5GiB", "1GB", "-1B"):
        with pytest.raises(GenieError):
            parse_size(text)


# -- credentials -----------------------------------------------------------------------------


def test_credentials_fit_together(tmp_path: Path) -> None:
    files = auth.init(tmp_path, ["gpu.example.org", "192.0.2.7"])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    server, client = (auth.Identity.load(tmp_path, role) for role in ("server", "client"))
    assert _handshake(server.context(server=True), client.context(server=False), "192.0.2.7")
    # A daemon is a client of its peers, with the same certificate.
    assert _handshake(server.context(server=True), server.context(server=False), "gpu.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(server.context(server=True), client.context(server=False), "other.example.org")
    # A client's certificate does not make a server.
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(client.context(server=True), client.context(server=False), "localhost")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """A handshake in memory; whether both ends came through it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done = [False, False]
    for _ in range(10):
        for n, end in enumerate(ends):
            try:
                end.do_handshake()
                done[n] = True
            except ssl.SSLWantReadError:
                continue
    return all(done) and ends[0].version() == "TLSv1.3"


def test_credentials_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(GenieError) as caught:
        auth.Identity.load(tmp_path, "server")
    assert (caught.value.code, caught.value.exit_code) == ("GEN0523", 6)
    auth.init(tmp_path, [])
    (tmp_path / "server.pem").write_text("nothing")
    with pytest.raises(GenieError) as caught:
        auth.Identity.load(tmp_path, "server").context(server=True)
    assert caught.value.code == "GEN0523"
    (tmp_path / "client.key").chmod(0o640)
    with pytest.raises(GenieError) as caught:
        auth.Identity.load(tmp_path, "client")
    assert "0640" in (caught.value.cause or "")
    with pytest.raises(GenieError) as caught:
        auth.init(tmp_path / "other", ["bad name é"])
    assert caught.value.code == "GEN0514"


def test_tokens(tmp_path: Path) -> None:
    token = tmp_path / "deep" / "token"
    first = secrets_files.ensure_token(token)
    assert secrets_files.ensure_token(token) == first
    assert len(first) == 64
    assert not secrets_files.write_secret(token, b"other")
    assert secrets_files.read_token(token) == first
    for content in (b"", b"short", b"x" * 600, b"\xff" * 40, b"two words " * 5, bytes(1 << 17)):
        bad = tmp_path / "bad"
        bad.write_bytes(content)
        bad.chmod(0o600)
        with pytest.raises(GenieError) as caught:
            secrets_files.read_token(bad)
        assert caught.value.code == "GEN0523"
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(GenieError) as caught:
            secrets_files.read_token(path)
        assert caught.value.code == "GEN0523"
    (tmp_path / "file").write_text("")
    with pytest.raises(GenieError) as caught:
        secrets_files.ensure_token(tmp_path / "file" / "token")
    assert caught.value.code == "GEN0523"


# -- logs and notifications ------------------------------------------------------------------


def test_logs_are_json_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    secret, digest = "a1" * 32, "sha256:" + "b2" * 32
    try:
        logs.configure()
        logs.logger("x").info("hello", token="t", key="k", text=f"{secret} {digest}", n=3)
        logging.getLogger("y").warning("Bearer %s", secret)
        try:
            raise ValueError(secret)
        except ValueError:
            logging.getLogger("z").exception("failed")
    finally:
        root.handlers[:], root.level = before, level
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert secret not in text
    assert (lines[0]["token"], lines[0]["key"], lines[0]["n"]) == (logs.REDACTED,) * 2 + (3,)
    assert lines[0]["text"] == f"{logs.REDACTED} {digest}"
    assert [line["event"] for line in lines[1:]] == [logs.REDACTED, "failed"]
    assert "ValueError" in lines[2]["exception"]


def test_without_a_service_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not notify("READY=1")
    for text, pid, seconds in (("4000000", "", 2.0), ("0", "", None), ("4000000", "1", None)):
        monkeypatch.setenv("WATCHDOG_USEC", text)
        monkeypatch.setenv("WATCHDOG_PID", pid)
        assert watchdog_interval() == seconds


# -- messages --------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_typed_error(data: bytes) -> None:
    for read in (m.decode, m.decode_reply):
        try:
            read(m.WaitRequest, data)
        except GenieError as error:
            assert error.code in ("GEN0509", "GEN0500")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["ok", "errors", "x"]), JSON))
def test_any_reply_is_read_or_refused(body: dict[str, Any]) -> None:
    with pytest.raises(GenieError):
        m.decode_reply(m.WaitReply, json.dumps(body).encode())


def test_messages_and_errors_come_through_whole() -> None:
    request = m.SessionRequest(session="0" * 32)
    assert m.decode(m.SessionRequest, m.encode(request)) == request
    reply = m.WaitReply(state="running")
    assert m.decode_reply(m.WaitReply, m.encode_reply(reply)) == reply
    errors = GenieErrors(
        [
            GenieError("GEN0404", "first", Place(path="x"), "cause", "remedy", {"n": 2**60}),
            GenieError("GEN0405", "second", context={"f": 1.5, "l": [1, None, {"a": "b"}]}),
        ]
    )
    with pytest.raises(GenieErrors) as caught:
        m.decode_reply(m.WaitReply, m.encode_error(errors))
    first, second = caught.value.errors
    assert (first.code, first.place, first.cause) == ("GEN0404", Place(path="x"), "cause")
    assert first.context == {"n": str(2**60)}
    assert second.context == {"f": "1.5", "l": [1, None, {"a": "b"}]}


def test_an_error_of_a_newer_peer_keeps_its_text() -> None:
    with pytest.raises(GenieError) as caught:
        m.decode_reply(m.Empty, b'{"errors": [{"code": "GEN9999", "message": "of tomorrow"}]}')
    assert caught.value.code == "GEN0500"
    assert "GEN9999: of tomorrow" in caught.value.message


def test_a_log_of_negotiations_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"request": {}}\n')
    with pytest.raises(GenieError) as caught:
        list(replay(path))
    assert caught.value.code == "GEN0507"
    assert caught.value.place is not None
    assert caught.value.place.line == 1
