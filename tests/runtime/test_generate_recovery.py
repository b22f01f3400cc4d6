"""A generation whose daemon or executor dies: one stream, with the tokens of an undisturbed run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genie.client import connect, coordinate
from genie_schemas.errors import GenieError
from tests.daemons import Daemons, until
from tests.runtime.lm import COUNT, PROMPTS, held, slow_lm, wanted
from tests.tiny_lm import padded, tiny_lm

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("victim", ["worker", "daemon", "first of two"])
def test_a_loss_in_mid_generation_is_not_seen(
    victim: str, daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = victim == "first of two"
    made = slow_lm(tmp_path, monkeypatch, devices=2 if two else 1)
    first = daemons.start("a")
    endpoints = [first.endpoint] + ([daemons.start("b").endpoint] if two else [])
    came: list[int] = []

    def disturb(index: int, tokens: tuple[int, ...]) -> None:
        came.append(index)
        if index != 3:
            return
        if victim == "worker":
            (worker,) = first.workers()
            worker.kill()
        else:
            first.kill()
            daemons.start("a", wait=False)

    with connect(endpoints) as session:
        session.install(made.path)
        result = session.generate(
            padded(PROMPTS), max_new_tokens=COUNT, on_tokens=disturb, run_id="r" if two else None
        )
        assert result.outputs["tokens"].tolist() == wanted(made)
        assert came == list(range(COUNT))
        assert result.attempts == 2
        # The session goes on as if nothing had been.
        again = session.generate(padded(PROMPTS), max_new_tokens=4)
        assert again.outputs["tokens"].tolist() == [row[:4] for row in wanted(made)]
        if two:
            recorded = session.generate(padded(PROMPTS), max_new_tokens=COUNT, run_id="r")
            assert recorded.replayed
            assert recorded.outputs["tokens"].tolist() == wanted(made)


def test_a_silent_daemon_that_does_not_come_back_ends_it(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinate, "RECONNECT", 0.5)
    made = slow_lm(tmp_path, monkeypatch)
    daemon = daemons.start()

    def stop(index: int, tokens: tuple[int, ...]) -> None:
        if index == 2:
            daemon.kill()

    with connect(daemon.endpoint) as session:
        session.install(made.path)
        with pytest.raises(GenieError) as caught:
            session.generate(padded(PROMPTS), max_new_tokens=COUNT, on_tokens=stop)
        assert caught.value.code == "GEN0502"
        assert caught.value.cause == "it did not come back"


def test_cancelling_ends_it_on_the_daemon(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slow_lm(tmp_path, monkeypatch)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        session.install(made.path)

        def cancel(index: int, tokens: tuple[int, ...]) -> None:
            if index == 1:
                session.cancel("stop-me")

        with pytest.raises(GenieError) as caught:
            session.generate(
                padded(PROMPTS), max_new_tokens=COUNT, run_id="stop-me", on_tokens=cancel
            )
        assert caught.value.code == "GEN0415"
        until(lambda: held(daemon) == (0, 0, 0))


def test_a_client_that_dies_leaves_nothing(daemons: Daemons, tmp_path: Path) -> None:
    """kill -9 of a client with a sequence: its state is freed when its lease ends."""
    made = tiny_lm(tmp_path)
    daemon = daemons.start()
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
