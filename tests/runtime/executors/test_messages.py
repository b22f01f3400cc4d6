"""What supervisor and worker say to each other: round trips, pieces, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_runtime.executors import messages
from genie_runtime.ports import (
    Failed,
    Finished,
    Generation,
    Ready,
    Region,
    RunEvent,
    RunRequest,
    RunStats,
    Sampled,
    StateUse,
)
from genie_schemas.errors import GenieError, Place

text = st.text(st.characters(codec="utf-8"), max_size=40)
number = st.integers(0, 2**53 - 1)
regions = st.dictionaries(text, st.builds(Region, number, number, number), max_size=3)
tokens = st.lists(st.integers(-1, 2**53 - 1), max_size=4).map(tuple)
positive = st.floats(0, allow_nan=False, allow_infinity=False)
generations = st.builds(
    Generation,
    max_new_tokens=st.integers(1, 2**53 - 1),
    temperature=positive,
    top_k=number,
    top_p=st.floats(0, 1, exclude_min=True),
    seed=number,
    forced=st.lists(tokens, max_size=3).map(tuple),
)
requests = st.builds(
    RunRequest,
    run_key=text,
    attempt=number,
    plan_digest=text,
    entrypoint=text,
    device=text,
    dims=st.dictionaries(text, number, max_size=3),
    inputs=regions,
    incoming=regions,
    outgoing=regions,
    outputs=regions,
    state=st.none() | st.builds(StateUse, key=text, expects=number, keep=st.booleans()),
    generation=st.none() | generations,
)
errors = st.builds(
    GenieError,
    st.sampled_from(["GEN0450", "GEN0460"]),
    text,
    st.none() | st.builds(Place, file=st.none() | text, line=st.none() | number, path=text),
    st.none() | text,
    st.none() | text,
    st.dictionaries(text, st.none() | st.booleans() | number | text, max_size=3),
)
going = st.builds(Ready, text) | st.builds(Sampled, number, tokens.filter(bool))
last = st.one_of(
    st.builds(Finished, st.builds(RunStats, number, number, number, number)),
    st.builds(Failed, errors, st.booleans()),
)


def same(a: RunEvent, b: RunEvent) -> bool:
    if isinstance(a, Failed) and isinstance(b, Failed):
        return a.retryable == b.retryable and a.error.to_json() == b.error.to_json()
    return a == b


@given(number, requests)
def test_a_request_survives_the_way_to_a_worker(ticket: int, request: RunRequest) -> None:
    frame = messages.encode(messages.Run.of(ticket, request))
    size, blob = messages.check_sizes(frame[:8], messages.COMMAND_LIMIT, 0)
    assert (size, blob) == (len(frame) - 8, 0)
    command = messages.parse_command(frame[8:])
    assert isinstance(command, messages.Run)
    assert (command.ticket, command.request()) == (ticket, request)


@given(text, text)
def test_a_delivery_survives_the_way_to_a_worker(run_key: str, step: str) -> None:
    frame = messages.encode(messages.Deliver(run_key, step))
    size, blob = messages.check_sizes(frame[:8], messages.COMMAND_LIMIT, 0)
    assert (size, blob) == (0, len(frame) - 8)
    assert messages.parse_command(b"", frame[8:]) == messages.Deliver(run_key, step)


def told(ticket: int, event: RunEvent) -> messages.Report:
    if isinstance(event, Ready | Sampled):
        return messages.Told(ticket, event)
    return messages.Event.of(ticket, event)


@given(st.lists(st.tuples(number, going | last), max_size=4), st.lists(st.integers(1, 50)))
def test_events_survive_in_pieces(sent: list[tuple[int, RunEvent]], cuts: list[int]) -> None:
    stream = b"".join(messages.encode(told(t, e)) for t, e in sent)
    decoder = messages.FrameDecoder()
    got = []
    for cut in [*cuts, len(stream) + 1]:
        got += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert len(got) == len(sent)
    for report, (ticket, event) in zip(got, sent, strict=True):
        assert isinstance(report, messages.Event | messages.Told)
        assert report.ticket == ticket
        found = report.event if isinstance(report, messages.Told) else report.event()
        assert same(found, event)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waits_for_more(data: bytes) -> None:
    pack = messages.HEADER.pack
    for feed in (data, pack(len(data), 0) + data, pack(0, len(data)) + data):
        try:
            messages.FrameDecoder().feed(feed)
        except GenieError as error:
            assert error.code == "GEN0454"
    try:
        messages.parse_command(b"", data)
    except GenieError as error:
        assert error.code == "GEN0454"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"?",
        b"R1234567",
        b"R" + bytes([255] * 8) + b"step",
        b"R12345678\xff",
        b"R" + bytes(8) + b"s" * 1025,
        b"S" + bytes(16),
        b"S" + bytes(16) + b"1234567",
        b"S" + bytes(16) + (2**53).to_bytes(8, "big"),
        b"S" + bytes(16) + (-2).to_bytes(8, "big", signed=True),
        b"S" + bytes([255] * 16) + bytes(8),
        b"D",
        b"D\x00\x09short",
        b"D\x00\x01\xffstep",
        b"D\x00\x01kstep\xff",
        b"D\x04\x01" + b"k" * 1025 + b"step",
    ],
)
def test_brief_messages_that_nobody_sends_are_refused(body: bytes) -> None:
    for read in (messages.parse_command, messages.parse_report):
        with pytest.raises(GenieError) as caught:
            read(b"", body)
        assert caught.value.code == "GEN0454"


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"kind": "nothing"}',
        b'{"kind": "reply", "id": 1, "id": 2}',
        b'{"kind": "reply", "id": -1}',
        b'{"kind": "reply", "id": "1"}',
        b'{"kind": "reply", "id": 1, "more": 0}',
        b'{"kind": "reply", "id": 1.5}',
        b'{"kind": "event", "ticket": 1, "what": "finished", "stats": [1, 2, 3, 4, 5]}',
        b'{"kind": "event", "ticket": 1, "what": "ready"}',
        b"\xff",
    ],
)
def test_what_no_worker_says_is_refused(body: bytes) -> None:
    with pytest.raises(GenieError) as caught:
        messages.parse_report(body)
    assert caught.value.code == "GEN0454"


@pytest.mark.parametrize("what", ["finished", "failed"])
def test_an_event_without_what_belongs_to_it_is_refused(what: str) -> None:
    report = messages.parse_report(b'{"kind": "event", "ticket": 1, "what": "%s"}' % what.encode())
    assert isinstance(report, messages.Event)
    with pytest.raises(GenieError) as caught:
        report.event()
    assert caught.value.code == "GEN0454"


def test_sizes_are_checked_before_anything_is_read() -> None:
    header = messages.HEADER.pack(messages.REPORT_LIMIT + 1, 0)
    with pytest.raises(GenieError) as caught:
        messages.FrameDecoder().feed(header)
    assert caught.value.code == "GEN0454"
    with pytest.raises(GenieError):
        messages.FrameDecoder().feed(messages.HEADER.pack(2, 1) + b"{}")
    with pytest.raises(GenieError):
        messages.check_sizes(messages.HEADER.pack(2, messages.BLOB_LIMIT + 1), 10, 1 << 26)
    with pytest.raises(GenieError):
        messages.encode(messages.Deliver(run_key="r", step="s"), bytes(messages.BLOB_LIMIT + 1))


def test_an_error_keeps_plain_context_only() -> None:
    error = GenieError("GEN0460", "it failed", context={"op": "x", "sizes": [1, 2]})
    assert messages.ErrorData.of(error).error().context == {"op": "x", "sizes": "[1, 2]"}
