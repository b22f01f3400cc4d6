"""The lazy device belongs to a process: where it is not built, its tests are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_schemas.errors import GenieError
from tests.daemons import daemons

__all__ = ["daemons"]

HERE = True
try:
    import genie.lazy
except GenieError:  # built without torch: test_absent.py says so
    HERE = False
    collect_ignore_glob = ["test_[!a]*.py"]


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One embedded runtime for all of them, with a home of its own."""
    folder: Path = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.delenv("GENIE_ENDPOINT", raising=False)
        if HERE:
            genie.lazy.threads()
        yield


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Counters begin at zero, and nothing of another test is pending."""
    if HERE:
        genie.lazy.synchronize()
        genie.lazy.reset_stats()
