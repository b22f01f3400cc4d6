"""The lazy device belongs to a process: where it is not built, its tests are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_schemas.errors import GenieError
from tests.daemons import daemons

__all__ = ["daemons"]

try:
    import genie.lazy
except GenieError as missing:
    pytest.skip(f"the lazy device is not here: {missing.message}", allow_module_level=True)


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
