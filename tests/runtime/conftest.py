"""Fixtures: private home directories for every test, daemons for those that ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemons import daemons, home
from tests.runtime.lm import pair

__all__ = ["daemons", "home", "pair"]


@pytest.fixture(autouse=True)
def _private(home: Path) -> None:
    """Every test here has a home of its own."""
