"""Constants on their way to a daemon: only what is missing, verified, resumed where it broke."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from genie.client import connect
from genie.client.channel import Channel, Credentials
from genie.client.opening import hello
from genie_runtime import endpoint
from genie_schemas import messages as m
from genie_schemas.constants import CHUNK, ConstantFiles, chunk_digests
from genie_schemas.errors import GenieError
from genie_transport import DMAHandle, TransferManager
from genie_transport import connect as connect_data
from tests.daemons import Daemon, Daemons, until
from tests.plans_by_hand import HandMade, two_layers


class Sender:
    """A client that sends chunks one by one."""

    def __init__(self, daemon: Daemon, made: HandMade) -> None:
        self.made = made
        self.control = Channel(endpoint.parse(daemon.endpoint), Credentials())
        self.opened = self.control.call("Open", hello(), m.OpenReply)
        self.session = self.opened.session
        where = self.opened.data
        self.data: TransferManager = connect_data(
            where.endpoint, where.session, bytes.fromhex(where.key)
        )
        self.control.watch(self.session, 0.25)
        install = m.InstallRequest(
            session=self.session,
            plan_digest=made.plan.plan_digest,
            devices=list(made.plan.devices),
            plan=made.path.read_text(),
        )
        self.control.call("Install", install, m.InstallReply, 60.0)
        self.plan = m.PlanRequest(session=self.session, plan_digest=made.plan.plan_digest)

    def missing(self) -> dict[str, list[int] | None]:
        reply = self.control.call("Missing", self.plan, m.MissingReply)
        return {item.digest: item.chunks for item in reply.constants}

    def put(self, name: str, chunks: list[bytes] | None = None) -> list[m.ChunkTarget]:
        constant = self.made.plan.constants[name]
        offered = m.OfferedConstant(
            digest=constant.digest,
            bytes=constant.bytes,
            chunks=[c.hex() for c in chunks or chunk_digests(self.view(name))],
        )
        put = m.PutRequest(**self.plan.model_dump(), constants=[offered])
        return self.control.call("PutConstants", put, m.PutReply).targets[0].chunks

    def view(self, name: str) -> memoryview:
        with ConstantFiles(self.made.path.parent) as files:
            return files.view(self.made.plan.constants[name].source)

    def send(self, target: m.ChunkTarget, data: memoryview) -> None:
        part = data[target.index * CHUNK : (target.index + 1) * CHUNK]
        source = self.data.register(part)
        self.data.post(source, DMAHandle.from_json(target.handle)).result(30)

    def seal(self, name: str) -> dict[str, list[int] | None]:
        digests = [self.made.plan.constants[name].digest]
        reply = self.control.call(
            "Seal", m.SealRequest(**self.plan.model_dump(), digests=digests), m.MissingReply, 60.0
        )
        return {item.digest: item.chunks for item in reply.constants}

    def close(self) -> None:
        self.control.call("Close", m.SessionRequest(session=self.session), m.Empty, 10.0)
        self.control.close()
        self.data.close()

    def vanish(self) -> None:
        self.control.close()
        self.data.close()


@pytest.fixture
def made(tmp_path: Path) -> HandMade:
    """`w1` has three chunks."""
    return two_layers(tmp_path, hidden=150_000)


def test_a_broken_upload_goes_on_with_the_chunks_that_lack(
    daemons: Daemons, made: HandMade
) -> None:
    daemon = daemons.start()
    first = Sender(daemon, made)
    w1 = made.plan.constants["w1"].digest
    assert first.missing()[w1] is None
    targets = first.put("w1")
    assert [t.index for t in targets] == [0, 1, 2]
    assert first.put("w1") == []  # they are on their way already
    first.send(targets[0], first.view("w1"))
    first.send(targets[2], first.view("w1"))
    assert w1 in first.seal("w1")  # verifies what came; one chunk is still to come
    first.vanish()
    second = Sender(daemon, made)
    until(lambda: second.missing()[w1] == [1], 15.0)
    (target,) = second.put("w1")
    assert target.index == 1
    second.send(target, second.view("w1"))
    assert w1 not in second.seal("w1")
    assert w1 not in second.missing()
    second.close()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        size = sum(c.bytes for c in made.plan.constants.values())
        assert session.traffic()["sent"] < size - 2 * CHUNK


def test_wrong_bytes_are_refused_and_can_be_sent_again(daemons: Daemons, made: HandMade) -> None:
    sender = Sender(daemons.start(), made)
    b1 = made.plan.constants["b1"].digest
    with pytest.raises(GenieError) as caught:
        sender.put("b1", [secrets.token_bytes(32)])
    assert caught.value.code == "GEN0425"
    (target,) = sender.put("b1")
    sender.send(target, memoryview(bytes(made.plan.constants["b1"].bytes)))
    with pytest.raises(GenieError) as caught:
        sender.seal("b1")
    assert caught.value.code == "GEN0425"
    assert b1 in sender.missing()
    (target,) = sender.put("b1")
    sender.send(target, sender.view("b1"))
    assert b1 not in sender.seal("b1")
    sender.close()


def test_a_constant_that_the_plan_does_not_have_gets_no_place(
    daemons: Daemons, made: HandMade
) -> None:
    sender = Sender(daemons.start(), made)
    data = b"something else"
    from genie_schemas.constants import digest

    offered = m.OfferedConstant(
        digest=digest(data), bytes=len(data), chunks=[c.hex() for c in chunk_digests(data)]
    )
    put = m.PutRequest(**sender.plan.model_dump(), constants=[offered])
    reply = sender.control.call("PutConstants", put, m.PutReply)
    assert reply.targets[0].chunks == []
    wrong = offered.model_copy(update={"digest": made.plan.constants["b1"].digest})
    put = m.PutRequest(**sender.plan.model_dump(), constants=[wrong])
    with pytest.raises(GenieError) as caught:
        sender.control.call("PutConstants", put, m.PutReply)
    assert caught.value.code == "GEN0425"
    sender.close()


def test_a_run_before_its_constants_is_refused(daemons: Daemons, made: HandMade) -> None:
    sender = Sender(daemons.start(), made)
    prepare = m.PrepareRequest(
        session=sender.session,
        plan_digest=made.plan.plan_digest,
        entrypoint="forward",
        run_id="run-1",
        durable=False,
        dims={"batch": 1},
        links={},
        wait_ms=1000,
        deadline_ms=1000,
    )
    for changes, code in (
        ({}, "GEN0426"),
        ({"dims": {"batch": 9}}, "GEN0404"),
        ({"dims": {}}, "GEN0404"),
        ({"entrypoint": "backward"}, "GEN0407"),
        ({"plan_digest": "sha256:" + "0" * 64}, "GEN0426"),
        ({"links": {"h/transfer@d0->d1": "0" * 32}}, "GEN0418"),
    ):
        with pytest.raises(GenieError) as caught:
            sender.control.call("Prepare", prepare.model_copy(update=changes), m.PrepareReply)
        assert caught.value.code == code
    sender.close()


def test_a_prepared_run_that_is_not_started_is_released(daemons: Daemons, made: HandMade) -> None:
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)
    sender = Sender(daemon, made)
    sender.missing()
    prepare = m.PrepareRequest(
        session=sender.session,
        plan_digest=made.plan.plan_digest,
        entrypoint="forward",
        run_id="run-1",
        durable=True,
        inputs_digest="sha256:" + "1" * 64,
        dims={"batch": 1},
        links={},
        wait_ms=1000,
        deadline_ms=60_000,
    )
    reply = sender.control.call("Prepare", prepare, m.PrepareReply, 90.0)
    assert reply.run is not None
    again = sender.control.call("Prepare", prepare, m.PrepareReply)
    assert again.run is None  # it is being run: by this very session
    unnamed = prepare.model_copy(update={"inputs_digest": None})
    with pytest.raises(GenieError) as caught:
        sender.control.call("Prepare", unnamed, m.PrepareReply)
    assert caught.value.code == "GEN0509"
    release = m.RunRequestId(session=sender.session, run=reply.run)
    sender.control.call("Release", release, m.Empty)
    sender.control.call("Release", release, m.Empty)
    third = sender.control.call("Prepare", prepare, m.PrepareReply)
    assert third.run is not None
    start = m.StartRequest(session=sender.session, run=third.run, outgoing={}, outputs={})
    sender.control.call("Start", start, m.Empty)
    with pytest.raises(GenieError) as caught:
        sender.control.call("Start", start, m.Empty)
    assert caught.value.code == "GEN0416"
    sender.close()
