"""Fixtures of the transport tests."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genie_transport import Limits, TransferManager
from genie_transport.testing import PATHS, pair
from tests.transport.certificates import CLIENT, SERVER, Authority, context
from tests.transport.support import descriptors, eventually, transfer_threads

Pair = tuple[TransferManager, TransferManager]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test gives back its threads and descriptors."""
    before = descriptors()
    yield
    eventually(lambda: not transfer_threads(), "all threads have ended")
    assert descriptors() <= before


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    return context(SERVER, authority, authority.issue("server"))


@pytest.fixture
def client_tls(authority: Authority) -> ssl.SSLContext:
    return context(CLIENT, authority, authority.issue("client"))


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_pair(path: str) -> Iterator[Callable[..., Pair]]:
    """Make connected pairs over each path; all are closed afterwards."""
    made: list[TransferManager] = []

    def make(limits: Limits | None = None) -> Pair:
        a, b = pair(path, limits=limits)
        made.extend((a, b))
        return a, b

    yield make
    for manager in made:
        manager.close()
