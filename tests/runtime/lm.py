"""What tests of generation share: places to run on, and a model that takes its time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.tiny_lm
from genie.client.admin import status
from genie_schemas.messages import StatusReply
from tests.daemons import Daemon, Daemons
from tests.plans_by_hand import HandMade
from tests.tiny_lm import greedy, tiny_lm

Pair = tuple[Daemon, Daemon]

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]
COUNT = 24


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two daemons for all tests that leave them as they were: starting one takes seconds."""
    found = Daemons(Path(tempfile.mkdtemp(prefix="gd-")))
    yield found.start("a"), found.start("b")
    found.close()


def wanted(made: HandMade, count: int = COUNT, eos: tuple[int, ...] = ()) -> list[list[int]]:
    """The rows of `tokens` for `PROMPTS`; rows that ended are padded with 0."""
    rows = [greedy(made.weights, prompt, count, eos) for prompt in PROMPTS]
    length = max((row.index(-1) if -1 in row else count) for row in rows)
    return [[max(token, 0) for token in row[:length]] for row in rows]


def slow_lm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, devices: int = 1, work: int = 256
) -> HandMade:
    """`tiny_lm` whose every token costs some 10 ms, so that something can happen meanwhile.

    With `work` 512 it is some 100 ms.
    """
    programs = tests.tiny_lm._programs

    def slowed() -> dict[str, Any]:
        made = programs()
        head = made["decode.head"]
        size = [work, work]
        ops = [{"out": ["w0"], "op": "aten.ones.default", "args": [size]}]
        ops += [
            {
                "out": [f"w{i + 1}"],
                "op": "aten.mm.default",
                "args": [{"v": "w0"}, {"v": f"w{i}"}],
            }
            for i in range(20)
        ]
        head["ops"] = [*ops, *head["ops"]]
        head["scratch_bytes"] += f"+{work * work * 4 * 22}"
        return made

    with monkeypatch.context() as patch:
        patch.setattr(tests.tiny_lm, "_programs", slowed)
        return tiny_lm(folder, devices=devices, name=f"slow-lm-{devices}")


def held(*daemons: Daemon) -> tuple[int, int, int]:
    """(states, their bytes, bytes that runs reserved) over daemons."""
    found: list[StatusReply] = [status(daemon.endpoint) for daemon in daemons]
    states = [reply.states for reply in found if reply.states is not None]
    assert sum(s.bytes for s in states) == sum(d.state_bytes for r in found for d in r.devices)
    reserved = sum(device.reserved_bytes for reply in found for device in reply.devices)
    return sum(s.count for s in states), sum(s.bytes for s in states), reserved
