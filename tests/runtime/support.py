"""Helpers of the runtime tests: inputs, what a session sends, how a daemon ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie.client.admin import status
from genie.client.remote import RemoteLink
from genie.client.session import Session
from tests.daemons import Daemon

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)
EYE = np.eye(512, dtype=np.float32)


def link(session: Session) -> RemoteLink:
    found = session.links[0]
    assert isinstance(found, RemoteLink)
    return found


@contextmanager
def control_calls(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the control messages of every node of a session by name."""
    counts: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for node in session.links:
            assert isinstance(node, RemoteLink)
            inner = node.channel.call

            def call(name: str, *args: Any, inner: Any = inner, **options: Any) -> Any:
                counts[name] += 1
                return inner(name, *args, **options)

            patch.setattr(node.channel, "call", call)
        yield counts


def warm(session: Session, inputs: dict[str, Any]) -> None:
    """The first run goes over the control connection, the second one opens a channel."""
    for _ in range(2):
        session.run(inputs)


def folders(parent: Path, count: int) -> list[Path]:
    """Plans of one name need a folder each."""
    found = [parent / str(i) for i in range(count)]
    for folder in found:
        folder.mkdir()
    return found


def reserved(daemon: Daemon) -> int:
    return sum(device.reserved_bytes for device in status(daemon.endpoint).devices)


def ended(daemon: Daemon, code: int, *words: str) -> None:
    assert daemon.process.wait(20) == code, daemon.log
    for word in words:
        assert word in daemon.log
    assert "Traceback" not in daemon.log


def one_thread(call: Any) -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(before)
