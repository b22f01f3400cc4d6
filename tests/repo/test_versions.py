"""One support matrix: whatever else names a version must agree with it."""

from __future__ import annotations

import re
import tomllib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version

from genie_schemas import versions
from tests.repo.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def floor_of(name: str) -> str:
    """The floor of a dependency in pyproject.toml."""
    listed = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        listed += extra
    (found,) = [r for r in map(Requirement, listed) if r.name == name]
    (bound,) = found.specifier
    assert bound.operator == ">="
    return bound.version


def test_python_floor_is_everywhere_the_same() -> None:
    floor = versions.PYTHON_FLOOR
    assert PROJECT["project"]["requires-python"] == f">={floor}"
    assert PROJECT["tool"]["mypy"]["python_version"] == floor
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + floor.replace(".", "")
    assert f"({floor.replace('.', ', ')})" in (ROOT / ".ci/setup").read_text()
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    named = re.findall(r'python(?:-version)?: "([\d.]+)"', workflow)
    assert floor in named
    assert all(versions.at_least(version, floor) for version in named)


def test_torch_floor_and_pin() -> None:
    assert floor_of("torch") == versions.SUPPORT["torch"].floor
    for lock in ("dev", "runtime"):
        text = (ROOT / f"locks/{lock}.txt").read_text()
        assert f"\ntorch=={versions.TORCH_TESTED}\n" in text


def test_grpc_floor_and_pin() -> None:
    row = versions.SUPPORT["grpcio"]
    assert floor_of("grpcio") == floor_of("grpcio-health-checking") == row.floor
    assert f"\ngrpcio=={row.tested}\n" in (ROOT / "locks/runtime.txt").read_text()


def test_the_log_is_dated_and_ends_at_the_present_versions() -> None:
    dates = [date.fromisoformat(change.date) for change in versions.LOG]
    assert dates == sorted(dates)
    present = {
        "plan": versions.PLAN_FORMAT,
        "spec": str(versions.SPEC_FORMAT),
        "control": versions.CONTROL_PROTOCOL,
        **{name: row.floor for name, row in versions.SUPPORT.items()},
    }
    assert {change.subject: change.version for change in versions.LOG} == present


def test_what_is_tested_is_supported() -> None:
    for row in versions.SUPPORT.values():
        assert versions.at_least(row.tested, row.floor), row.name
    assert versions.at_least(versions.PLAN_FORMAT, versions.PLAN_MIN_READER)


parts = st.lists(st.integers(0, 99_999), min_size=1, max_size=5)


@given(parts, parts)
def test_order_agrees_with_packaging(a: list[int], b: list[int]) -> None:
    one, other = ".".join(map(str, a)), ".".join(map(str, b))
    assert versions.at_least(one, other) == (Version(one) >= Version(other))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), (" v22.11.5-1~deb12u1", (22, 11, 5)), ("3.14.0rc1", (3, 14, 0))],
)
def test_release(text: str, numbers: tuple[int, ...]) -> None:
    assert versions.release(text) == numbers


@given(st.text())
def test_any_text_is_a_version_or_a_value_error(text: str) -> None:
    try:
        assert versions.release(text)
    except ValueError as error:
        assert repr(text) in str(error)


def test_the_package_has_the_version_of_the_distribution() -> None:
    import genie

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert genie.__version__ == project["version"]
