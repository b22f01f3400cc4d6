"""The large examples' plans: golden bytes, and the bits that they compute."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.golden import cases
from tests.golden.support import LARGE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm")]


@pytest.mark.parametrize("name", LARGE)
def test_the_plan_is_golden(name: str, snapshot: SnapshotAssertion) -> None:
    cases.check_golden(name, snapshot)


@pytest.mark.parametrize("name", LARGE)
def test_the_plan_is_clean(name: str) -> None:
    cases.check_clean(name)


@pytest.mark.parametrize("name", LARGE)
def test_the_plan_equals_eager(name: str) -> None:
    cases.check_equals_eager(name)
