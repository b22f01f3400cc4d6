"""Fixtures of the transport tests."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genie_transport import Fabric, Limits, Listener, TransferManager
from genie_transport._fabric_pair import FABRIC_PATHS, missing
from genie_transport.testing import PATHS, pair
from tests.transport.certificates import CLIENT, SERVER, Authority, context
from tests.transport.support import descriptors, eventually, transfer_threads

Pair = tuple[TransferManager, TransferManager]


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test gives back its threads and descriptors."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and str(callspec.params.get("path", "")).startswith("dpdk"):
        request.getfixturevalue("dpdk")
    before = descriptors()
    yield
    eventually(lambda: not transfer_threads(), "all threads have ended")
    # Two drivers do not give all back, and not always before the next test begins: memif's loses
    # the socket, the events and the memory of a handshake that its end overtakes; AF_XDP's a socket
    # and a map of the kernel's when its interface is in another namespace than the thread that
    # closes it.
    # What would be this package's own leak shows on the other paths over DPDK too.
    name = request.node.name
    lost = ("socket:", "bpf-map") if "dpdk" in name else ()
    if "dpdk-memif" in name:
        # DPDK's interrupt thread makes its epoll anew, under another number, when ports come or go.
        lost = (*lost, "[eventfd]", "[eventpoll]", "/memfd:memif_region")

    def left() -> list[str]:
        return sorted(d for d in descriptors() - before if not any(kind in d for kind in lost))

    with contextlib.suppress(AssertionError):
        eventually(lambda: not left(), "all descriptors are closed")
    assert not left()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    return context(SERVER, authority, authority.issue("server"))


@pytest.fixture
def client_tls(authority: Authority) -> ssl.SSLContext:
    return context(CLIENT, authority, authority.issue("client"))


@pytest.fixture(scope="session")
def dpdk() -> None:
    """DPDK, started: what it keeps open for the whole process is then no test's leftover."""
    reason = missing("dpdk-ring")
    if reason is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder:
        device = f"net_memif8,role=server,socket={folder}/memif.sock"
        Fabric.open(device, memory_mb=512).close()


@pytest.fixture(params=(*PATHS, *FABRIC_PATHS[1:]))
def path(request: pytest.FixtureRequest) -> str:
    """Every path; those over DPDK are skipped, with the reason, where they cannot be had."""
    name = str(request.param)
    if name in FABRIC_PATHS:
        reason = missing(name)
        if reason is not None:
            pytest.skip(reason)
    return name


@pytest.fixture
def kind(path: str) -> str:
    """What a manager over `path` calls its path."""
    return path.partition("-")[0]


@pytest.fixture
def turns(path: str) -> int:
    """How often to try what goes wrong only sometimes, when each time takes a pair of its own."""
    return 4 if path in ("dpdk-af_packet", "dpdk-af_xdp") else 20  # these make namespaces


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


@pytest.fixture(params=["unix", "tcp"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    """Listens at a Unix socket, or on loopback."""
    endpoint = f"unix://{tmp_path}/l.sock" if request.param == "unix" else "tcp://127.0.0.1:0"
    with Listener.open(endpoint) as opened:
        yield opened
