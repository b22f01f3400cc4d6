"""Stages on a terminal: a real pseudo-terminal as stderr, a clock that the test turns."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import pytest

from genie.cli.progress import Progress


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Terminal:
    reader: int
    stream: TextIO

    def __enter__(self) -> None:
        """Be stderr. Not in the fixture: pytest puts its own there before the test's body."""
        self.before, sys.stderr = sys.stderr, self.stream

    def __exit__(self, *failure: object) -> None:
        sys.stderr = self.before

    def text(self) -> str:
        """What was written, with the line ends that were meant."""
        os.set_blocking(self.reader, False)
        parts = []
        try:
            while part := os.read(self.reader, 4096):
                parts.append(part)
        except BlockingIOError:
            pass
        return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield Terminal(reader, stream)
    os.close(reader)


def stages(clock: Clock) -> None:
    """What the driver announces, with the seconds between."""
    with Progress(clock) as progress:
        for stage, seconds in (("spec", 1), ("capture", 0.5), ("model", 2), ("capture", 3)):
            progress(stage)
            clock.now += seconds


def test_a_line_for_each_stage(terminal: Terminal) -> None:
    with terminal:
        stages(Clock())
    said = terminal.text()
    lines = [line.rpartition("\x1b[0m ")[2] for line in said.split("\n")[:-1]]
    # The child's start counts as loading the model.
    assert [line.split() for line in lines] == [
        ["spec", "1.00", "s"],
        ["model", "2.50", "s"],
        ["capture", "3.00", "s"],
    ]
    assert "\r\x1b[K… model" in said


@pytest.mark.parametrize("setting", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_plain_lines_where_colour_is_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, setting: tuple[str, str]
) -> None:
    monkeypatch.setenv(*setting)
    with terminal:
        stages(Clock())
    said = terminal.text()
    assert "\x1b" not in said
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["✓", "spec"],
        ["✓", "model"],
        ["✓", "capture"],
    ]


def test_a_failure_leaves_no_running_line(terminal: Terminal) -> None:
    with terminal, pytest.raises(KeyError), Progress(Clock()) as progress:
        progress("spec")
        raise KeyError
    assert terminal.text() == "\r\x1b[K… spec\r\x1b[K"


def test_nothing_is_written_to_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    stages(Clock())
    assert capfd.readouterr() == ("", "")
