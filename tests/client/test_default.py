"""`genie.connect`: a session, and where else this process then goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import genie
from genie.client import default
from genie_schemas.errors import GenieError
from tests.daemons import Daemons
from tests.plans_by_hand import two_layers

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)


@pytest.fixture(autouse=True)
def _told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENIE_ENDPOINT", raising=False)
    monkeypatch.setattr(default, "_told", None)


def test_embedded_where_nothing_is_named(tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    with genie.connect() as session:
        session.install(made.path)
        assert session.run({"x": X}).outputs
        assert session.links[0].name == "embedded"
    assert default.default_target() == default.Target(None)


def test_a_daemon_that_is_named_is_remembered(daemons: Daemons, tmp_path: Path) -> None:
    daemon = daemons.start()
    made = two_layers(tmp_path)
    with genie.connect(daemon.endpoint) as session:
        session.install(made.path)
        assert session.run({"x": X}).outputs
    with default.default_target().open() as later:
        assert later.links[0].name == daemon.endpoint


def test_the_environment_names_one_too(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = daemons.start()
    monkeypatch.setenv("GENIE_ENDPOINT", daemon.endpoint)
    with genie.connect() as session:
        assert session.links[0].name == daemon.endpoint
    with genie.connect(devices=["cpu:memory=1GiB"]) as session:  # these can only be here
        assert session.links[0].name == "embedded"


@pytest.mark.parametrize("named", ["list", "pairs", "mapping"])
def test_of_several_daemons_the_first_is_remembered(named: str, daemons: Daemons) -> None:
    a, b = daemons.start("a").endpoint, daemons.start("b").endpoint
    several = {"list": [a, b], "pairs": [f"d0={a}", f"d1={b}"], "mapping": {"d0": a, "d1": b}}
    with genie.connect(several[named]) as session:
        assert [link.name for link in session.links] == [a, b]
    assert default.default_target() == default.Target(a)


def test_a_daemon_that_does_not_answer_is_not_remembered(tmp_path: Path) -> None:
    with pytest.raises(GenieError) as caught:
        genie.connect(f"unix://{tmp_path}/none.sock")
    assert caught.value.code == "GEN0501"
    assert default.default_target() == default.Target(None)


def test_importing_genie_imports_no_client() -> None:
    code = "import sys, genie; print([n for n in sys.modules if n.startswith('genie')])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "['genie']"
