"""A generation whose daemon or executor dies: one stream, with the tokens of an undisturbed run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genie.client import connect, coordinate
from genie_schemas.errors import GenieError
from tests.daemons import Daemons, until
from tests.runtime.lm import PROMPTS, Pair, held, slow_lm, wanted
from tests.tiny_lm import padded, tiny_lm

ROOT = Path(__file__).resolve().parents[2]
COUNT = 16
WORK = 384
"""Some 50 ms a token: a kill at the fourth comes long before the last, on a busy machine, too."""


def test_a_worker_that_dies_in_mid_generation_is_not_seen(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slow_lm(tmp_path, monkeypatch, work=WORK)
    came: list[int] = []

    def disturb(index: int, tokens: tuple[int, ...]) -> None:
        came.append(index)
        if index == 3:
            (worker,) = pair[0].workers()
            worker.kill()

    with connect(pair[0].endpoint) as session:
        session.install(made.path)
        result = session.generate(padded(PROMPTS), max_new_tokens=COUNT, on_tokens=disturb)
    assert result.outputs["tokens"].tolist() == wanted(made, COUNT)
    assert (came, result.attempts) == (list(range(COUNT)), 2)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_daemon_that_dies_in_mid_generation_is_not_seen(
    devices: int, daemons: Daemons, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two devices the one that dies is not the one that draws the tokens."""
    made = slow_lm(tmp_path, monkeypatch, devices, WORK)
    victim = daemons.start("a")
    endpoints = [victim.endpoint, pair[1].endpoint][:devices]
    came: list[int] = []

    def disturb(index: int, tokens: tuple[int, ...]) -> None:
        came.append(index)
        if index == 3:
            victim.kill()
            daemons.start("a", wait=False)

    with connect(endpoints) as session:
        session.install(made.path)
        sequence = session.sequence()
        sequence.run(padded(PROMPTS), entrypoint="prefill")
        named = f"named-{devices}"
        result = session.generate(
            padded(PROMPTS), max_new_tokens=COUNT, on_tokens=disturb, run_id=named
        )
        assert result.outputs["tokens"].tolist() == wanted(made, COUNT)
        assert (came, result.attempts) == (list(range(COUNT)), 2)
        # The session goes on as if nothing had been; a cache of before is gone.
        again = session.generate(padded(PROMPTS), max_new_tokens=4)
        assert again.outputs["tokens"].tolist() == [row[:4] for row in wanted(made, COUNT)]
        recorded = session.generate(padded(PROMPTS), max_new_tokens=COUNT, run_id=named)
        assert recorded.replayed
        assert recorded.outputs["tokens"].tolist() == wanted(made, COUNT)
        with pytest.raises(GenieError) as caught:
            sequence.run({"token": np.zeros(2, np.int64)}, entrypoint="decode")
        assert caught.value.code == "GEN0475"

        def end(index: int, tokens: tuple[int, ...]) -> None:
            if index == 1:
                daemons.running[-1].kill()

        monkeypatch.setattr(coordinate, "RECONNECT", 0.3)
        with pytest.raises(GenieError) as caught:
            session.generate(padded(PROMPTS), max_new_tokens=COUNT, on_tokens=end)
        assert (caught.value.code, caught.value.cause) == ("GEN0502", "it did not come back")


def test_cancelling_ends_it_on_the_daemon(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slow_lm(tmp_path, monkeypatch, work=WORK)
    with connect(pair[0].endpoint) as session:
        session.install(made.path)

        def cancel(index: int, tokens: tuple[int, ...]) -> None:
            if index == 1:
                session.cancel("stop-me")

        with pytest.raises(GenieError) as caught:
            session.generate(
                padded(PROMPTS), max_new_tokens=COUNT, run_id="stop-me", on_tokens=cancel
            )
        assert caught.value.code == "GEN0415"
        until(lambda: held(pair[0]) == (0, 0, 0))


def test_a_client_that_dies_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    """kill -9 of a client with a sequence: its state is freed when its lease ends."""
    made = tiny_lm(tmp_path)
    daemon = pair[0]
    program = (
        "import os, signal, sys\n"
        "from genie.client import connect\n"
        "from tests.tiny_lm import padded\n"
        "session = connect(sys.argv[1])\n"
        "session.install(sys.argv[2])\n"
        "session.sequence().run(padded([[1, 2]]), entrypoint='prefill')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, daemon.endpoint, str(made.path)], cwd=ROOT, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert held(daemon)[0] == 1
    until(lambda: held(daemon) == (0, 0, 0), 12)
