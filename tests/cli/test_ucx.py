"""`--transport ucx`: between daemons that declare their network trusted, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_transport import ucx_built
from tests.cli.conftest import Result
from tests.daemons import Daemons, daemons
from tests.plans_by_hand import two_layers

__all__ = ["daemons"]

pytestmark = pytest.mark.skipif(not ucx_built(), reason="this build of Genie has no UCX")

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)


def test_between_two_daemons(
    genie: Callable[..., Result], daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", X)
    plan = two_layers(Path(), devices=2).path
    monkeypatch.setenv("UCX_TLS", "tcp")
    both = [
        daemons.start(name, "--peer-listen", "127.0.0.1:0", "--trusted-fabric") for name in "ab"
    ]
    on = [part for daemon in both for part in ("--on", daemon.endpoint)]

    def run(*options: str) -> dict[str, object]:
        result = genie("execute", str(plan), "--input", "x=x.npy", "--json", *options)
        assert result.code == 0, result.err
        found: dict[str, object] = json.loads(result.out)
        return found

    local, remote = run(), run(*on, "--transport", "ucx")
    assert remote["outputs"] == local["outputs"]
    assert remote["transports"] == {"client->d0": "shm", "client->d1": "shm", "d0->d1": "ucx"}
    assert run(*on)["transports"] == {"client->d0": "shm", "client->d1": "shm", "d0->d1": "tcp"}


def test_without_the_declaration_it_is_refused(
    genie: Callable[..., Result], daemons: Daemons
) -> None:
    np.save("x.npy", X)
    plan = two_layers(Path(), devices=2).path
    both = [daemons.start(name, "--peer-listen", "127.0.0.1:0") for name in "ab"]
    on = [part for daemon in both for part in ("--on", daemon.endpoint)]
    result = genie("execute", str(plan), "--input", "x=x.npy", "--json", *on, "--transport", "ucx")
    assert result.code == 5
    assert json.loads(result.out)["error"]["code"] == "GEN0530"
