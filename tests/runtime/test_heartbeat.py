"""The heartbeat's stream: each message is answered for its session, and says nothing twice."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from genie.bench.semantics._genie import Daemons as Relayed
from genie.bench.semantics._wires import Wires
from genie.client import connect
from genie.client.admin import status
from genie.client.channel import FRAMING, SILENCE, Channel, Credentials
from genie.client.opening import hello
from genie.client.remote import RemoteLink
from genie_runtime import endpoint
from genie_runtime.config import Limits
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from tests.daemons import Daemon, Daemons, until
from tests.plans_by_hand import two_layers
from tests.runtime.support import X, link

ON_THE_WIRE = FRAMING + 2 * 13
"""Most bytes of a beat without content, one way: itself, and two windows of HTTP/2 opened again."""

OPEN = int(SILENCE / Limits().heartbeat_seconds) + 1
"""Most beats that wait for an answer: on a busy machine they lie on the border of what is seen."""


def test_a_stream_answers_each_message_for_its_own_session(daemons: Daemons) -> None:
    daemon = daemons.start()
    where = endpoint.parse(daemon.endpoint)
    control = Channel(where, Credentials())
    ends, stays = (control.call("Open", hello(), m.OpenReply).session for _ in range(2))
    control.call("Close", m.SessionRequest(session=ends), m.Empty)
    control.close()
    dead, live = (m.encode(m.SessionRequest(session=name)) for name in (ends, stays))
    padded = live + b" " * 1000
    sent = [live, live, dead, live, padded, padded, b"{", live]
    with grpc.insecure_channel(where.grpc_target) as raw:
        beat = raw.stream_stream(f"/{m.SERVICE}/Heartbeat", None, None)
        answers = list(beat(iter(sent), timeout=20))
    assert len(answers) == len(sent)
    for data, answer in zip(sent, answers, strict=True):
        if data in (live, padded):
            m.decode_reply(m.Pulse, answer)
            continue
        with pytest.raises(GenieError) as caught:
            m.decode_reply(m.Pulse, answer)
        assert caught.value.code == ("GEN0508" if data == dead else "GEN0509")


def test_a_message_read_before_is_refused_once_its_session_has_ended(daemons: Daemons) -> None:
    daemon = daemons.start()
    where = endpoint.parse(daemon.endpoint)
    control = Channel(where, Credentials())
    request = m.SessionRequest(session=control.call("Open", hello(), m.OpenReply).session)
    outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with grpc.insecure_channel(where.grpc_target) as raw:
        beat = raw.stream_stream(f"/{m.SERVICE}/Heartbeat", None, None)
        answers = beat(iter(outbox.get, None), timeout=20)
        outbox.put(m.encode(request))
        m.decode_reply(m.Pulse, next(answers))
        control.call("Close", request, m.Empty)
        control.close()
        outbox.put(m.encode(request))
        with pytest.raises(GenieError) as caught:
            m.decode_reply(m.Pulse, next(answers))
        assert caught.value.code == "GEN0508"
        outbox.put(None)
        assert list(answers) == []


def refused(answer: bytes, code: str) -> bool:
    with pytest.raises(GenieError) as caught:
        m.decode_reply(m.Pulse, answer)
    return caught.value.code == code


def test_no_bytes_stand_for_the_last_message_that_could_be_read(daemons: Daemons) -> None:
    where = endpoint.parse(daemons.start().endpoint)
    control = Channel(where, Credentials())
    ends, stays = (control.call("Open", hello(), m.OpenReply).session for _ in range(2))
    control.call("Close", m.SessionRequest(session=ends), m.Empty)
    control.close()
    dead, live = (m.encode(m.KeepRequest(session=name)) for name in (ends, stays))
    same = m.AS_BEFORE
    sent = [same, live, same, same, b"{", same, live, dead, same, live, same]
    with grpc.insecure_channel(where.grpc_target) as raw:
        beat = raw.stream_stream(f"/{m.SERVICE}/Heartbeat", None, None)
        answers = list(beat(iter(sent), timeout=20))
        assert refused(next(beat(iter([same]), timeout=20)), "GEN0509")  # each stream begins anew
    assert refused(answers[0], "GEN0509")
    assert answers[2:4] == [same, same]
    assert refused(answers[4], "GEN0509")
    assert answers[5] == same
    assert refused(answers[7], "GEN0508")
    assert refused(answers[8], "GEN0508")
    assert answers[10] == same
    for at in (1, 6, 9):
        m.decode_reply(m.Pulse, answers[at])  # who asks in full is told in full


def quiet(control: Channel) -> tuple[int, int]:
    """The traffic of a session once its first beat has been answered."""
    begun = control.traffic()
    until(lambda: control.traffic()[1] > begun[1])
    return control.traffic()


def test_a_quiet_session_is_kept_by_beats_without_content(tmp_path: Path) -> None:
    """Longer than its lease; nothing but these beats is on the link meanwhile."""
    with (
        Wires() as wires,
        Relayed(1, 1, wires) as relayed,
        relayed.session(1, counted=True) as session,
    ):
        session.install(two_layers(tmp_path).path)
        control = link(session).channel
        before, wire = quiet(control), wires.traffic("genie")
        time.sleep(Limits().lease + 1.0)
        spent, (sent, received) = wires.traffic("genie") - wire, control.traffic()
        beats, answers = (sent - before[0]) // FRAMING, (received - before[1]) // FRAMING
        assert abs(beats - answers) <= OPEN
        assert (sent, received) == (before[0] + beats * FRAMING, before[1] + answers * FRAMING)
        assert FRAMING <= spent.sent <= ON_THE_WIRE * (beats + OPEN)
        assert FRAMING <= spent.received <= ON_THE_WIRE * (answers + OPEN)
        assert session.run({"x": X}).outputs


def test_an_older_session_says_everything_each_time(daemons: Daemons) -> None:
    older = hello().model_copy(update={"protocol": "1.4"})
    node = RemoteLink(daemons.start().endpoint, older)
    whole = len(m.encode(m.KeepRequest(session=node.session))) + FRAMING
    before = quiet(node.channel)
    until(lambda: node.channel.traffic()[0] >= before[0] + 4 * whole)
    assert (node.channel.traffic()[0] - before[0]) % whole == 0
    assert node.lost() is None
    node.close()


def test_what_a_session_counts_is_said_when_it_has_grown(daemons: Daemons) -> None:
    daemon = daemons.start()
    counted = [m.LazyCounters(graphs_run=1)]
    with connect(daemon.endpoint) as session:
        link(session).tell(lambda: counted[0])
        for number in (1, 2, 3):
            counted[0] = m.LazyCounters(graphs_run=number)
            until(lambda n=number: _graphs(daemon) == [n])  # type: ignore[misc]
        before = quiet(link(session).channel)
        until(lambda: link(session).channel.traffic()[0] >= before[0] + 3 * FRAMING)
        assert (link(session).channel.traffic()[0] - before[0]) % FRAMING == 0
        assert _graphs(daemon) == [3]


def _graphs(daemon: Daemon) -> list[int]:
    return [session.graphs_run for session in status(daemon.endpoint).lazy]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_quiet_daemon_that_dies_or_hangs_is_noticed(
    daemons: Daemons, end: signal.Signals
) -> None:
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        node = link(session)
        quiet(node.channel)
        assert node.channel.lost() is None
        before = node.channel.traffic()
        daemon.process.send_signal(end)
        until(lambda: node.channel.lost() is not None)
        lost = node.channel.lost()
        assert lost is not None
        assert lost.code == "GEN0502"
        hung = f"it did not answer for {SILENCE} s"
        assert lost.cause == (hung if end == signal.SIGSTOP else "its connection broke")
        # The beats that went out unanswered tell the time, as far as the machine kept up.
        beats = (node.channel.traffic()[0] - before[0]) / FRAMING
        assert beats <= SILENCE / Limits().heartbeat_seconds + 2


def test_a_client_that_was_stopped_has_not_lost_its_daemon(
    daemons: Daemons, tmp_path: Path
) -> None:
    made, daemon = two_layers(tmp_path), daemons.start()
    code = (
        "import sys, time; from genie.client import connect; s = connect(sys.argv[1]);"
        "print('go', flush=True); sys.stdin.readline(); time.sleep(0.5);"
        "s.install(sys.argv[2]); print('kept', flush=True)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, daemon.endpoint, str(made.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == "go\n"
        client.send_signal(signal.SIGSTOP)
        time.sleep(2.5)  # longer than a silence that counts, shorter than the session's lease
        client.send_signal(signal.SIGCONT)
        assert client.communicate("on\n", timeout=30)[0] == "kept\n"
