"""The contract suite over sessions that have a connection beside their port.

"ring": as it is negotiated, the bytes go over the port. "tcp": after the move, over the connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from genie_transport import Fabric, Limits, TransferManager
from genie_transport._wires import core
from tests.transport.support import eventually
from tests.transport.test_failover import Joined

Pair = tuple[TransferManager, TransferManager]


@pytest.fixture(params=["ring", "tcp"])
def path(request: pytest.FixtureRequest) -> str:
    if core()[0] is None:
        pytest.skip(f"not built: {core()[1]}")
    return str(request.param)


@pytest.fixture
def make_pair(path: str) -> Iterator[Callable[..., Pair]]:
    with contextlib.ExitStack() as stack:

        def make(limits: Limits | None = None) -> Pair:
            joined = Joined(stack, limits=limits, fabrics=Fabric.rings(trusted=True))
            if path == "tcp":
                joined.lose()
                eventually(lambda: over_tcp(joined), "both sides moved")
            return joined.dialled, joined.accepted

        yield make


def over_tcp(joined: Joined) -> bool:
    managers = (joined.dialled, joined.accepted)
    assert all(manager.failure is None for manager in managers)  # looks at their events, too
    return joined.paths() == {"tcp"}
