"""What a session is opened with: its id, its key, limits, the path by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from genie_schemas.errors import CODES
from genie_transport import Limits, Listener, TransferManager, connect
from genie_transport.testing import pair
from tests.transport.support import KEY, WAIT, refused


@pytest.mark.parametrize("session_id", ["", "x" * 129, "a b", "ü", "a\n", "../x", 5])
def test_bad_session_ids(listener: Listener, session_id: Any) -> None:
    assert refused(lambda: listener.expect(session_id, KEY)).code == "GEN0602"
    assert refused(lambda: connect(listener.endpoint, session_id, KEY)).code == "GEN0602"


@pytest.mark.parametrize("key", [b"", b"secret-too-short", bytes(65), "0" * 32])
def test_bad_keys(listener: Listener, key: Any) -> None:
    if key == b"secret-too-short":
        key = key[:15]
    for action in (
        lambda: listener.expect("s", key),
        lambda: connect(listener.endpoint, "s", key),
    ):
        error = refused(action)
        assert error.code == "GEN0602"
        assert "secret" not in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_bytes": 100},
        {"chunk_bytes": 8 << 20},
        {"window_bytes": 1 << 20},
        {"window_bytes": 2 << 30},
        {"queue": 0},
        {"stall_timeout": 0.0},
        {"stall_timeout": float("nan")},
    ],
)
def test_limits_have_bounds(options: dict[str, Any]) -> None:
    assert refused(lambda: Limits(**options)).code == "GEN0602"


def test_open_by_path(listener: Listener, snapshot: SnapshotAssertion) -> None:
    path = listener.endpoint.partition(":")[0]
    options: dict[str, Any] = {"endpoint": listener.endpoint, "session_id": "s", "key": KEY}
    with (
        listener.expect("s", KEY) as daemon,
        TransferManager.open(path, **options, timeout=WAIT) as client,
    ):
        assert client.capabilities().path == daemon.capabilities().path == path
    found = {
        "nothing given": refused(lambda: TransferManager.open("tcp")),
        "other path": refused(
            lambda: TransferManager.open("tcp", endpoint="unix:///x", session_id="s", key=KEY)
        ),
        "loopback": refused(lambda: TransferManager.open("loopback", session_id="s")),
        "typo": refused(lambda: TransferManager.open("tpc")),
        "unknown": refused(lambda: pair("carrier-pigeon")),
    }
    assert {name: str(error) for name, error in found.items()} == snapshot


def test_loopback_alone_is_its_own_peer() -> None:
    with TransferManager.open("loopback") as manager:
        buffer = bytearray(3)
        dst = manager.register(buffer)
        arrival = manager.arrival(dst)
        assert manager.post(manager.register(b"abc"), dst).result(WAIT) == 3
        assert arrival.result(WAIT) == 3
        assert buffer == b"abc"


def test_every_code_is_explained() -> None:
    ours = {code: info for code, info in CODES.items() if code.startswith("GEN06")}
    assert len(ours) > 20
    assert all(len(info.text) > 80 for info in ours.values())
    source = Path(connect.__code__.co_filename).parent
    used = {c for f in source.glob("*.py") for c in re.findall(r"GEN06\d\d", f.read_text())}
    assert used - {"GEN0600"} == set(ours) - {"GEN0600"}
