"""Fixtures of the doctor's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.machines import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    for name in ("root/dev/shm", "bin", "state"):
        (tmp_path / name).mkdir(parents=True)
    made = Bench(tmp_path)
    made.python(torch={"version": "2.13.0", "cuda": None, "devices": []})
    return made


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make remedies speak to the user with this id (0 is root)."""

    def set_uid(uid: int) -> None:
        monkeypatch.setattr("os.geteuid", lambda: uid)

    return set_uid
