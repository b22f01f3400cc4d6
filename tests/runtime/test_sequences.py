"""Sequences: state on the nodes between the runs of a session, versioned, bounded, and freed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie.client import Sequence, Session, connect
from genie_schemas.errors import GenieError
from tests.daemons import Daemons
from tests.runtime.lm import PROMPTS, Pair, held, wanted
from tests.tiny_lm import BATCH, CAPACITY, WIDTH, padded, tiny_lm

CACHE = 4 * CAPACITY * WIDTH * 4
"""Bytes of the four caches of one row."""


@pytest.fixture(params=["embedded", "two daemons"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """A session with the plan on two devices installed."""
    endpoints = None
    if request.param != "embedded":
        endpoints = [daemon.endpoint for daemon in request.getfixturevalue("pair")]
    with connect(endpoints) as found:
        found.install(tiny_lm(tmp_path, devices=2).path)
        yield found


def prefill(sequence: Sequence, prompts: list[list[int]]) -> Any:
    return sequence.run(padded(prompts), entrypoint="prefill").outputs["logits"].argmax(-1)


def decode(sequence: Sequence, token: Any) -> Any:
    return sequence.run({"token": token}, entrypoint="decode").outputs["logits"].argmax(-1)


def code(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(GenieError) as caught:
        call(*args, **options)
    return caught.value.code


def test_sequences_go_on_side_by_side(session: Session, tmp_path: Path) -> None:
    made = tiny_lm(tmp_path)
    rows = wanted(made)
    both, *single = sequences = [session.sequence() for _ in range(3)]
    tokens = [prefill(both, PROMPTS)]
    alone = [[prefill(s, [prompt])] for s, prompt in zip(single, PROMPTS, strict=True)]
    for _ in range(4):
        tokens.append(decode(both, tokens[-1]))
        for sequence, found in zip(single, alone, strict=True):
            found.append(decode(sequence, found[-1]))
    assert np.array(tokens).T.tolist() == [row[:5] for row in rows]
    assert [np.array(found).T.tolist()[0] for found in alone] == [row[:5] for row in rows]
    assert [s.version for s in sequences] == [5, 5, 5]
    # Without a sequence, state begins anew and ends with the run.
    fresh = session.run(padded(PROMPTS), entrypoint="prefill").outputs["logits"].argmax(-1)
    assert fresh.tolist() == tokens[0].tolist()
    for sequence in sequences:
        sequence.close()
        sequence.close()


def test_state_that_does_not_fit_is_refused(session: Session, tmp_path: Path) -> None:
    sequence = session.sequence()
    token = prefill(sequence, PROMPTS)
    assert code(decode, sequence, token[:1]) == "GEN0477"
    assert code(sequence.run, padded(PROMPTS), entrypoint="generate") == "GEN0407"
    assert code(sequence.run, padded(PROMPTS), entrypoint="prefil") == "GEN0407"
    other = session.sequence(session.install(tiny_lm(tmp_path, devices=2, seed=1, name="b").path))
    other._key = sequence._key
    other.version = 1
    assert code(decode, other, token) == "GEN0477"
    decode(sequence, token)
    sequence.version = 1  # another client's, which has not heard of the last run
    assert code(decode, sequence, token) == "GEN0476"
    sequence.version = 2
    decode(sequence, token)
    sequence.close()
    assert code(decode, sequence, token) == "GEN0475"


def test_the_state_of_another_session_is_not_there(pair: Pair, tmp_path: Path) -> None:
    made = tiny_lm(tmp_path)
    with connect(pair[0].endpoint) as one, connect(pair[0].endpoint) as other:
        one.install(made.path)
        other.install(made.path)
        mine, theirs = one.sequence(), other.sequence()
        token = prefill(mine, PROMPTS)
        theirs._key, theirs.version = mine._key, mine.version
        assert code(decode, theirs, token) == "GEN0475"
        other._find(None)[1].drop_state(str(mine._key))  # frees nothing of ours
        decode(mine, token)


def test_state_holds_memory_until_it_is_closed(pair: Pair, tmp_path: Path) -> None:
    made = tiny_lm(tmp_path, devices=2)
    with connect([daemon.endpoint for daemon in pair]) as session:
        session.install(made.path)
        sequence, other = session.sequence(), session.sequence()
        prefill(sequence, PROMPTS)
        prefill(other, PROMPTS[:1])
        # Two of the four caches on each daemon, and a cursor for each layer.
        assert held(*pair) == (4, 3 * (CACHE + 2 * 8), 0)
        sequence.close()
        assert held(*pair) == (2, CACHE + 2 * 8, 0)
        with pytest.raises(GenieError):  # a run that fails moves nothing on
            decode(other, np.zeros(2, np.int64))
        decode(other, np.zeros(1, np.int64))
    assert held(*pair) == (0, 0, 0)


def test_a_second_sequence_waits_for_room_or_is_refused(daemons: Daemons, tmp_path: Path) -> None:
    """The budget counts state: what is held by one sequence, another one cannot have."""
    made = tiny_lm(tmp_path)
    batch = [[1]] * BATCH
    needs = made.plan.devices["d0"].needs
    daemon = daemons.start(device=f"cpu:memory={(needs + BATCH * CACHE // 2) >> 10}KiB")
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        first, second = session.sequence(), session.sequence()
        prefill(first, batch)
        with pytest.raises(GenieError) as caught:
            second.run(padded(batch), entrypoint="prefill", deadline=0.3)
        assert caught.value.code == "GEN0413"
        decode(first, np.zeros(BATCH, np.int64))
        first.close()
        prefill(second, batch)


def test_one_run_at_a_time(session: Session) -> None:
    sequence = session.sequence()
    prefill(sequence, PROMPTS)
    codes: list[str] = []
    inner, begun, go = sequence._run, threading.Event(), threading.Event()

    def waiting(*args: Any) -> Any:
        begun.set()
        assert go.wait(10)
        return inner(*args)

    sequence._run = waiting
    thread = threading.Thread(target=decode, args=(sequence, np.zeros(2, np.int64)))
    thread.start()
    assert begun.wait(10)
    codes.append(code(decode, sequence, np.zeros(2, np.int64)))
    go.set()
    thread.join(10)
    assert (codes, sequence.version) == (["GEN0478"], 2)
