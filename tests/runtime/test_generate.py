"""Generation loops: the tokens of a full forward, as they come, wherever the plan runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.client import Session, connect
from genie.client.admin import status
from genie.client.remote_leg import RemoteLeg
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from tests.plans_by_hand import HandMade
from tests.runtime.lm import COUNT, PROMPTS, Pair, wanted
from tests.tiny_lm import CAPACITY, padded, tiny_lm

PLACES = ("embedded", "daemon", "one daemon", "two daemons")


@pytest.fixture(scope="module")
def plans() -> Iterator[Callable[..., HandMade]]:
    folder = Path(tempfile.mkdtemp(prefix="gp-"))
    yield lambda **options: tiny_lm(Path(tempfile.mkdtemp(dir=folder)), **options)
    shutil.rmtree(folder)


def opened(place: str, pair: Pair) -> Session:
    endpoints = {
        "embedded": None,
        "daemon": pair[0].endpoint,
        "one daemon": pair[0].endpoint,
        "two daemons": [pair[0].endpoint, pair[1].endpoint],
    }
    return connect(endpoints[place])


def couriers(pair: Pair) -> list[int]:
    """Threads of the daemons that send what another process asks for."""
    tasks = [task for d in pair for task in Path(f"/proc/{d.process.pid}/task").iterdir()]
    return [int(t.name) for t in tasks if (t / "comm").read_text() == "genie-courier\n"]


def test_the_last_transfer_of_a_device_arrives_after_its_part_has_ended(
    pair: Pair, plans: Callable[..., HandMade]
) -> None:
    made = plans(devices=2)
    with opened("two daemons", pair) as session:
        session.install(made.path)
        session.generate(padded(PROMPTS), max_new_tokens=2)
        late = couriers(pair)
        assert late
        for thread in late:  # they get a processor when nobody else wants one
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in os.sched_getaffinity(0)
        ]
        try:
            for _ in range(3):
                result = session.generate(padded(PROMPTS), max_new_tokens=3)
                assert result.attempts == 1
                assert result.outputs["tokens"].tolist() == wanted(made, 3)
        finally:
            for process in busy:
                process.kill()
                process.wait()


@pytest.mark.parametrize("place", PLACES)
def test_the_tokens_are_those_of_a_full_forward(
    place: str, pair: Pair, plans: Callable[..., HandMade]
) -> None:
    made = plans(devices=2 if "one" in place or "two" in place else 1)
    came: list[tuple[int, tuple[int, ...]]] = []
    with opened(place, pair) as session:
        session.install(made.path)
        result = session.generate(
            padded(PROMPTS), max_new_tokens=COUNT, on_tokens=lambda i, t: came.append((i, t))
        )
        tokens = result.outputs["tokens"]
        assert tokens.dtype == np.int64
        assert tokens.tolist() == wanted(made)
        assert came == list(enumerate(map(tuple, tokens.T.tolist())))
        shown = result.to_json()["generation"]
        assert shown["tokens"] == COUNT
        assert shown["ms_per_token"] > 0
        assert 0 < shown["ttft_ms"] <= shown["client"]["ttft_ms"]
        drawn = session.generate(
            padded(PROMPTS), max_new_tokens=COUNT, temperature=1.5, top_k=40, top_p=0.9, seed=2**40
        )
        with connect() as here:
            here.install(plans(devices=1).path)
            same = here.generate(
                padded(PROMPTS),
                max_new_tokens=COUNT,
                temperature=1.5,
                top_k=40,
                top_p=0.9,
                seed=2**40,
            )
        assert drawn.outputs["tokens"].tolist() == same.outputs["tokens"].tolist()
        assert drawn.outputs["tokens"].tolist() != tokens.tolist()
        if place == "embedded":
            assert result.bytes == {"sent": 0, "received": 0}


@pytest.mark.parametrize("place", PLACES)
def test_rows_end_with_an_end_token_and_are_padded(
    place: str, pair: Pair, plans: Callable[..., HandMade]
) -> None:
    free = plans()
    rows = wanted(free)
    eos = (rows[0][4], rows[1][9])
    made = plans(devices=2 if "one" in place or "two" in place else 1, eos=eos)
    expected = wanted(made, eos=eos)
    assert len(expected[0]) < COUNT
    with opened(place, pair) as session:
        session.install(made.path)
        tokens = session.generate(padded(PROMPTS), max_new_tokens=COUNT).outputs["tokens"]
        assert tokens.tolist() == expected


def test_a_token_costs_a_client_few_bytes(pair: Pair, plans: Callable[..., HandMade]) -> None:
    made = plans()
    before = status(pair[0].endpoint).telemetry
    with connect(pair[0].endpoint) as session:
        session.install(made.path)
        inputs = padded([[9, 8, 7]])
        inputs.pop("lengths")
        session.generate(inputs, max_new_tokens=2)
        spent = []
        for _ in range(4):
            few, many = (
                session.generate(inputs, max_new_tokens=n).bytes["received"]
                for n in (2, CAPACITY - 3)
            )
            assert many >= CAPACITY - 3  # tokens that wait for the client share a message
            spent.append(many - few)
        # Heartbeats of a run that was held up are in it, too.
        assert min(spent) <= 64 * (CAPACITY - 5)
    after = status(pair[0].endpoint).telemetry
    assert after["tokens"] - before["tokens"] == 2 + 4 * (2 + CAPACITY - 3)
    assert after["phase_prefill"] - before["phase_prefill"] == 1 + 4 * 2
    assert after["phase_decode"] - before["phase_decode"] == 1 + 4 * 2
    assert '"prefill -> decode"' in pair[0].log


def test_a_named_generation_is_replayed(pair: Pair, plans: Callable[..., HandMade]) -> None:
    made = plans(devices=2)
    for endpoints in (None, [pair[0].endpoint, pair[1].endpoint]):
        with connect(endpoints) as session:
            session.install(made.path)
            call = {"max_new_tokens": 6, "temperature": 0.7, "seed": 1, "run_id": "poem-1"}
            first = session.generate(padded(PROMPTS), **call)
            came: dict[int, tuple[int, ...]] = {}
            again = session.generate(padded(PROMPTS), **call, on_tokens=came.__setitem__)
            assert (first.replayed, again.replayed) == (False, True)
            assert again.outputs["tokens"].tolist() == first.outputs["tokens"].tolist()
            assert list(came) == list(range(6))
            for other in ({"seed": 2}, {"temperature": 0.71}, {"max_new_tokens": 7}):
                with pytest.raises(GenieError) as caught:
                    session.generate(padded(PROMPTS), **{**call, **other})
                assert caught.value.code == "GEN0410"


def test_a_stream_is_taken_up_again_where_it_broke(
    pair: Pair, plans: Callable[..., HandMade], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that breaks while its daemon lives is asked for again, from the next index on."""
    made = plans()
    asked: list[int] = []
    inner = RemoteLeg.tokens

    def breaking(self: RemoteLeg, after: int, rows: int) -> Iterator[Any]:
        asked.append(after)
        for first, steps in inner(self, after, rows):
            yield first, steps[:1]
            if len(asked) < 3:
                raise GenieError("GEN0502", "the stream broke")
            if steps[1:]:
                yield first + 1, steps[1:]

    monkeypatch.setattr(RemoteLeg, "tokens", breaking)
    with connect(pair[0].endpoint) as session:
        session.install(made.path)
        result = session.generate(padded(PROMPTS), max_new_tokens=COUNT)
    assert result.outputs["tokens"].tolist() == wanted(made)
    assert result.attempts == 1
    assert asked == [0, 1, 2]


def test_what_a_callback_raises_ends_the_run(pair: Pair, plans: Callable[..., HandMade]) -> None:
    made = plans()

    class Enough(Exception):
        pass

    def stop(index: int, tokens: tuple[int, ...]) -> None:
        raise Enough

    def lie(index: int, tokens: tuple[int, ...]) -> None:
        raise GenieError("GEN0502", "raised by the caller's own function")

    for endpoint in (None, pair[0].endpoint):
        with connect(endpoint) as session:
            session.install(made.path)
            with pytest.raises(Enough):
                session.generate(padded(PROMPTS), max_new_tokens=COUNT, on_tokens=stop)
            with pytest.raises(GenieError, match="own function"):
                session.generate(padded(PROMPTS), max_new_tokens=COUNT, on_tokens=lie)
            fine = session.generate(padded(PROMPTS), max_new_tokens=COUNT)
            assert fine.outputs["tokens"].tolist() == wanted(made)


@given(
    st.integers(0, 2**40),
    st.integers(1, 4).flatmap(
        lambda rows: st.lists(
            st.tuples(*[st.integers(m.ENDED, 2**62)] * rows), min_size=1, max_size=5
        )
    ),
)
def test_frames_come_back_as_they_were(first: int, steps: list[tuple[int, ...]]) -> None:
    data = m.encode_tokens(first, steps)
    rows = len(steps[0])
    assert m.decode_tokens(data, rows) == (first, steps)
    for cut in range(len(data)):
        with pytest.raises(GenieError) as caught:
            m.decode_tokens(data[:cut], rows)
        assert caught.value.code == "GEN0509"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\1", b"\1\0\0", b"\1\0\1\1\1\1", b"\2\0\1\1\1", b"\1" + b"\xff" * 40]
)
def test_frames_of_another_form_are_refused(data: bytes) -> None:
    assert m.decode_tokens(b"\1\0\1\1\0", 2) == (0, [(0, m.ENDED)])
    with pytest.raises(GenieError) as caught:
        m.decode_tokens(data, 2)
    assert caught.value.code == "GEN0509"
