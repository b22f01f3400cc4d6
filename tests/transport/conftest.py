"""Fixtures of the transport tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from genie_transport import Limits, TransferManager
from tests.transport.support import (
    WIRES,
    choose,
    descriptors,
    eventually,
    open_pair,
    transfer_threads,
)

Pair = tuple[TransferManager, TransferManager]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test gives back its threads and descriptors."""
    before = descriptors()
    yield
    eventually(lambda: not transfer_threads(), "all threads have ended")
    assert descriptors() <= before


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    choose(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def path(wire: str) -> str:
    return wire.partition("-")[0]


@pytest.fixture
def make_pair(wire: str) -> Iterator[Callable[..., Pair]]:
    """Make connected pairs over each path; all are closed afterwards."""
    made: list[TransferManager] = []

    def make(limits: Limits | None = None) -> Pair:
        a, b = open_pair(wire, limits)
        made.extend((a, b))
        return a, b

    yield make
    for manager in made:
        manager.close()
