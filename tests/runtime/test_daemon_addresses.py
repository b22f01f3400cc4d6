"""Where genied lives: its state directory, its addresses, and what stands there already."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from genie.client.admin import status
from tests.daemons import Daemons
from tests.runtime.support import ended


def test_a_state_directory_has_one_daemon(daemons: Daemons) -> None:
    first = daemons.start("d0")
    other = f"unix://{daemons.folder}/other.sock"
    ended(daemons.start("d0", listen=other, wait=False), 1, "GEN0505")
    assert status(first.endpoint).sessions == 0


def test_an_address_has_one_daemon_and_a_dead_ones_is_taken_over(daemons: Daemons) -> None:
    first = daemons.start("d0")
    second = daemons.start("d1", listen=first.endpoint, wait=False)
    ended(second, 1, "GEN0504")
    assert status(first.endpoint).sessions == 0
    first.kill()
    assert Path(first.endpoint.removeprefix("unix://")).exists()
    third = daemons.start("d2", listen=first.endpoint)
    assert status(third.endpoint).boot_id


def test_something_else_at_the_address_is_left_alone(daemons: Daemons) -> None:
    path = daemons.folder / "file.sock"
    path.write_text("precious")
    ended(daemons.start(listen=f"unix://{path}", wait=False), 1, "GEN0504")
    assert path.read_text() == "precious"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemons.folder / "live.sock"))
        other.listen(1)
        live = daemons.start("d1", listen=f"unix://{daemons.folder}/live.sock", wait=False)
        ended(live, 1, "GEN0504", "a process listens there")


def test_a_folder_that_others_may_write_is_refused(daemons: Daemons) -> None:
    folder = daemons.folder / "open"
    folder.mkdir()
    folder.chmod(0o777)
    ended(daemons.start(listen=f"unix://{folder}/d.sock", wait=False), 6, "GEN0525")
    folder.chmod(0o1777)
    daemons.start("d1", listen=f"unix://{folder}/d.sock")


@pytest.mark.parametrize(
    "address",
    [*("0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0", "[::ffff:192.0.2.1]:0"), "example.org:7000"],
)
@pytest.mark.parametrize("option", ["--listen", "--peer-listen"])
def test_a_public_address_without_tls_and_token_is_refused_at_once(
    daemons: Daemons, address: str, option: str
) -> None:
    argv = [] if option == "--listen" else [option, address]
    listen = address if option == "--listen" else None
    ended(daemons.start("d0", *argv, listen=listen, wait=False), 6, "GEN0520", "genie auth init")


@pytest.mark.parametrize(
    ("argv", "listen", "code", "word"),
    [
        ([], "nonsense", 2, "GEN0514"),
        ([], "unix://relative.sock", 2, "GEN0514"),
        ([], "unix:///" + "x" * 120, 2, "GEN0514"),
        (["--device", "gpu"], None, 2, "GEN0512"),
        (["--device", "cuda:31"], None, 1, "GEN0513"),
        (["--ledger-size", "many"], None, 2, "GEN0515"),
        (["--state-dir", "/proc/none"], None, 1, "GEN0506"),
        (["--no-such-option"], None, 2, "No such option"),
    ],
)
def test_options_that_cannot_be(
    daemons: Daemons, argv: list[str], listen: str | None, code: int, word: str
) -> None:
    ended(daemons.start("d0", *argv, listen=listen, wait=False), code, word)
