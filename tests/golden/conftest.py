"""Compilations of the golden tests share what their processes import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.warm import interpreter


@pytest.fixture(scope="session")
def _warm_interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with interpreter(tmp_path_factory.mktemp("warm")) as program:
        yield program


@pytest.fixture
def warm(_warm_interpreter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's children start from a process that has imported torch."""
    monkeypatch.setattr(sys, "executable", str(_warm_interpreter))
