"""Fixtures: private home directories for every test, daemons for those that ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemons import daemons, home

__all__ = ["daemons", "home"]


@pytest.fixture(autouse=True)
def _private(home: Path) -> None:
    """Every test here has a home of its own."""
