"""Where one can listen and dial: addresses, sockets in the file system, who may reach them."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from genie_transport import Listener, connect
from tests.transport.support import KEY, WAIT, refused


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "http://127.0.0.1:1",
        "unix://relative.sock",
        "unix:///" + "x" * 200,
        "unix:///a\0b",
        "tcp://127.0.0.1",
        "tcp://:9000",
        "tcp://::1:9000",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:٣",
    ],
)
def test_malformed_endpoints(snapshot: SnapshotAssertion, endpoint: str) -> None:
    error = refused(lambda: Listener.open(endpoint))
    assert str(refused(lambda: connect(endpoint, "s", KEY))) == str(error) == snapshot
    assert error.exit_code == 2


ELSEWHERE = ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "192.0.2.1", "10.1.2.3"]  # noqa: S104


@pytest.mark.parametrize("host", ELSEWHERE)
def test_beyond_this_machine_needs_tls(snapshot: SnapshotAssertion, host: str) -> None:
    error = refused(lambda: Listener.open(f"tcp://{host}:0"))
    assert error.exit_code == 6
    assert str(error) == snapshot
    assert refused(lambda: connect(f"tcp://{host}:9", "s", KEY)).code == "GEN0603"


def test_ipv6_loopback() -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").read_text().strip():
        pytest.skip("no IPv6 on this machine")
    with Listener.open("tcp://[::1]:0") as listener, listener.expect("s", KEY) as daemon:
        assert listener.endpoint.startswith("tcp://[::1]:")
        with connect(listener.endpoint, "s", KEY):
            assert daemon.wait_connected(WAIT)


def test_unresolvable_host() -> None:
    assert refused(lambda: Listener.open("tcp://no-such-host.invalid:1")).code == "GEN0604"
    assert refused(lambda: connect(f"tcp://{'x' * 300}:1", "s", KEY)).code == "GEN0604"


def test_occupied_port() -> None:
    with Listener.open("tcp://127.0.0.1:0") as first:
        error = refused(lambda: Listener.open(first.endpoint))
        assert error.code == "GEN0605"
        assert "in use" in str(error)


def test_unix_sockets_are_private(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    before = os.umask(0)
    try:
        with Listener.open(f"unix://{path}"):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


def test_unix_paths_that_are_taken(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = tmp_path / "p.sock"
    with Listener.open(f"unix://{path}") as first:
        error = refused(lambda: Listener.open(f"unix://{path}"))
        assert str(error).replace(str(tmp_path), "") == snapshot
        with first.expect("s", KEY) as daemon, connect(first.endpoint, "s", KEY):
            assert daemon.wait_connected(WAIT)
    path.write_text("precious")
    error = refused(lambda: Listener.open(f"unix://{path}"))
    assert str(error).replace(str(tmp_path), "") == snapshot
    assert path.read_text() == "precious"
    error = refused(lambda: Listener.open(f"unix://{tmp_path}/missing/p.sock"))
    assert error.code == "GEN0605"


def test_left_over_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with (
        Listener.open(f"unix://{path}") as listener,
        listener.expect("s", KEY) as daemon,
        connect(listener.endpoint, "s", KEY),
    ):
        assert daemon.wait_connected(WAIT)


def test_closing_leaves_the_successors_socket(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    first = Listener.open(f"unix://{path}")
    path.rename(tmp_path / "moved.sock")
    with Listener.open(f"unix://{path}"):
        first.close()
        assert path.exists()


def test_unreachable(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    error = refused(lambda: connect(f"unix://{tmp_path}/nobody.sock", "s", KEY))
    assert error.exit_code == 5
    assert str(error).replace(str(tmp_path), "") == snapshot
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        assert refused(lambda: connect(endpoint, "s", KEY)).exit_code == 5


@pytest.mark.root
def test_other_users_cannot_dial(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"genie-private-{os.getpid()}"
    folder.mkdir()
    try:
        with Listener.open(f"unix://{folder}/p.sock"):
            code = (
                "import os, socket, sys\n"
                "os.setuid(65534)\n"
                "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
                "except PermissionError: print('refused')\n"
            )
            done = subprocess.run(
                [sys.executable, "-I", "-c", code, f"{folder}/p.sock"],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert done.stdout.strip() == "refused"
    finally:
        folder.rmdir()
