"""`--transport`: a path that is named is taken or refused, and every choice is on record."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from genie.client import connect
from genie_runtime.negotiation import replay
from genie_schemas.errors import GenieError
from tests.cli.conftest import Result
from tests.daemons import Daemon, Daemons, daemons
from tests.plans_by_hand import HandMade, two_layers

__all__ = ["daemons"]

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)
PEERS = ("--peer-listen", "127.0.0.1:0")
Genie = Callable[..., Result]


@pytest.fixture
def made(genie: Genie) -> HandMade:
    """A plan over two devices, and x.npy, in the working directory."""
    np.save("x.npy", X)
    return two_layers(Path(), devices=2)


def call(genie: Genie, made: HandMade, *argv: str) -> tuple[Result, dict[str, Any]]:
    result = genie("execute", str(made.path), "--input", "x=x.npy", "--json", *argv)
    return result, json.loads(result.out)


def links(daemon: Daemon) -> list[dict[str, Any]]:
    """What the daemon has on record about connections."""
    log = daemon.state_dir / "negotiations.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry["link"] for entry in entries if "link" in entry]


def test_a_named_path_that_a_daemon_lacks_is_refused(
    genie: Genie, daemons: Daemons, made: HandMade, snapshot: SnapshotAssertion
) -> None:
    daemon = daemons.start()
    found = {}
    for path in ("dpdk", "ucx", "tcp"):
        result = genie(
            *("execute", str(made.path), "--input", "x=x.npy"),
            *("--on", daemon.endpoint, "--transport", path),
        )
        assert result.code == 5
        assert path in result.err
        assert "Traceback" not in result.err
        found[path] = result.err.replace(str(daemons.folder), "FOLDER")
    assert found == snapshot
    refused = [line.recorded for line in replay(daemon.state_dir / "negotiations.jsonl")]
    assert refused == [{"refused": "GEN0530"}] * 3
    assert not links(daemon)


def test_one_daemon_of_two_lacks_the_path(genie: Genie, daemons: Daemons, made: HandMade) -> None:
    has, lacks = daemons.start("a", *PEERS), daemons.start("b")
    for order in ([has, lacks], [lacks, has]):
        on = [part for daemon in order for part in ("--on", daemon.endpoint)]
        result, found = call(genie, made, *on, "--transport", "tcp")
        assert result.code == 5
        assert found["error"]["code"] == "GEN0530"
        assert found["error"]["place"]["path"] == lacks.endpoint
        assert found["error"]["context"] == {"transport": "tcp", "paths": ["shm"]}


def test_there_is_no_path_within_a_process(
    genie: Genie, made: HandMade, snapshot: SnapshotAssertion
) -> None:
    result = genie("execute", str(made.path), "--input", "x=x.npy", "--transport", "tcp")
    assert result.code == 2
    assert result.err == snapshot
    result, found = call(genie, made, "--transport", "auto")
    assert (result.code, found["transports"]["d0->d1"]) == (0, "in-process")
    with pytest.raises(GenieError, match="GEN0531"):
        connect(transport="pigeon")


@pytest.mark.parametrize("asked", ["auto", "shm", "tcp"])
@pytest.mark.parametrize("peers", ["unix", "tcp"])
def test_the_path_of_every_leg(
    genie: Genie, daemons: Daemons, made: HandMade, asked: str, peers: str
) -> None:
    both = [daemons.start(name, *(PEERS if peers == "tcp" else ())) for name in ("a", "b")]
    on = [part for daemon in both for part in ("--on", daemon.endpoint)]
    result, found = call(genie, made, *on, "--transport", asked)
    there = "shm" if peers == "unix" else "tcp"
    if asked not in ("auto", there):
        assert (result.code, found["error"]["code"]) == (5, "GEN0530")
        return
    assert result.code == 0, result.err
    assert found["transports"] == {"client->d0": "shm", "client->d1": "shm", "d0->d1": there}
    record = [link for daemon in both for link in links(daemon) if link["role"] != "client"]
    assert sorted(link["role"] for link in record) == ["dialled", "expected"]
    for link in record:
        assert (link["transport"], link["path"]) == (asked, there)
        wanted = {"dpdk": "no port is open here"}
        if peers == "tcp":
            wanted["shm"] = "the peer is reached over TCP, and may be another machine"
        elif asked == "auto":
            wanted = {}  # nothing is better than shared memory
        assert link["reasons"] == ({} if asked != "auto" else wanted)
    assert all(line.same for line in replay(both[0].state_dir / "negotiations.jsonl"))


def test_the_choice_is_logged_on_both_sides(
    daemons: Daemons, made: HandMade, caplog: pytest.LogCaptureFixture
) -> None:
    both = [daemons.start(name, *PEERS) for name in ("a", "b")]
    ends = [daemon.endpoint for daemon in both]
    with caplog.at_level(logging.INFO, "genie.client"), connect(ends) as session:
        session.install(made.path)
        session.run({"x": X})
    assert "tcp; not shm: the peer is reached over TCP" in caplog.text
    for daemon in both:
        told = [json.loads(line)["event"] for line in daemon.log.splitlines()]
        assert any("tcp (TCP frames); not shm" in event for event in told), told


def test_it_has_a_default_in_genie_toml(genie: Genie, daemons: Daemons, made: HandMade) -> None:
    daemon = daemons.start()
    Path("genie.toml").write_text('[execute]\ntransport = "dpdk"\n')
    result, found = call(genie, made, "--on", daemon.endpoint)
    assert (result.code, found["error"]["code"]) == (5, "GEN0530")
    result, _ = call(genie, made, "--on", daemon.endpoint, "--transport", "auto")
    assert result.code == 0
    Path("genie.toml").write_text('[execute]\ntransport = "pigeon"\n')
    result, found = call(genie, made, "--on", daemon.endpoint)
    assert (result.code, found["error"]["code"]) == (2, "GEN0130")
