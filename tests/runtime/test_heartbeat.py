"""The heartbeat's stream: each message is answered for the session that it names."""

from __future__ import annotations

import queue

import grpc
import pytest

from genie.client.channel import Channel, Credentials
from genie.client.opening import hello
from genie_runtime import endpoint
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from tests.daemons import Daemons


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
