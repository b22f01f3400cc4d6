"""The lazy device belongs to a process: one session for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import genie.lazy
from tests.daemons import daemons

__all__ = ["daemons"]


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One embedded runtime for all of them, with a home of its own."""
    folder: Path = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.delenv("GENIE_ENDPOINT", raising=False)
        genie.lazy.threads()
        yield


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Counters begin at zero, and nothing of another test is pending."""
    genie.lazy.synchronize()
    genie.lazy.reset_stats()
