"""Tensors that stay on a node between the runs of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genie.client import Session, connect
from genie_schemas.errors import GenieError
from tests.daemons import Daemons, daemons, home
from tests.plans_by_hand import expected, two_layers

__all__ = ["daemons", "home"]

X = np.ones((2, 16), np.float32)
NAME = "0" * 31 + "1"


@pytest.fixture(params=["embedded", "daemon"])
def session(request: pytest.FixtureRequest, home: Path) -> Iterator[Session]:
    if request.param == "embedded":
        opened = connect()
    else:
        opened = connect(request.getfixturevalue("daemons").start().endpoint)
    with opened:
        yield opened


def _held(session: Session) -> int:
    (link,) = session.links
    if hasattr(link, "status"):
        return sum(int(d["constant_bytes"]) for d in link.status()["devices"])
    from genie.client.admin import status

    return sum(d.constant_bytes for d in status(link.name).devices)


def test_an_output_stays_and_is_the_input_of_the_next_run(session: Session, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    session.install(made.path)
    weights = sum(w.nbytes for w in made.weights.values())
    kept = session.run({"x": X}, keep={"h": NAME})
    assert set(kept.outputs) == {"y"}
    assert _held(session) >= weights + 2 * 32 * 4
    np.testing.assert_allclose(kept.outputs["y"], expected(made, X)["y"], rtol=1e-5)
    with pytest.raises(GenieError) as taken:
        session.run({"x": X}, keep={"h": NAME})
    assert taken.value.code == "GEN0427"
    session.run({"x": X}, drop=[NAME])
    assert _held(session) == weights


def test_a_tensor_of_another_size_or_name_is_refused(session: Session, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    session.install(made.path)
    session.run({"x": X}, keep={"h": NAME})
    for wrong in (NAME, "f" * 32):
        with pytest.raises(GenieError) as caught:
            session.run({}, resident={"x": wrong})
        assert caught.value.code == "GEN0427"
    assert session.run({"x": X}).outputs["y"].shape == (2, 4)


def test_what_a_session_kept_ends_with_it(daemons: Daemons, tmp_path: Path, home: Path) -> None:
    endpoint = daemons.start().endpoint
    made = two_layers(tmp_path)
    with connect(endpoint) as first:
        first.install(made.path)
        first.run({"x": X}, keep={"h": NAME})
        with connect(endpoint) as second:
            second.install(made.path)
            with pytest.raises(GenieError) as caught:
                second.run({}, resident={"x": NAME})
            assert caught.value.code == "GEN0427"
