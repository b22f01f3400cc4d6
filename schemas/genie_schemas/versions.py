"""Every version that Genie promises something about: formats, and the machines it supports.

This module is the only place where a floor or a format version is written by hand.
`pyproject.toml`, the lock files, the CI workflow and `genie doctor` are tested against it.

What "breaking" means: a reader accepts a plan exactly when the plan's `min_reader` does not exceed
the reader's `PLAN_FORMAT`. A change that an older reader may ignore (inside `advisory`) raises
`PLAN_FORMAT` alone; any other raises `PLAN_MIN_READER` too. `LOG` gets an entry with every change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CONTROL_PROTOCOL",
    "LOG",
    "PLAN_FORMAT",
    "PLAN_MIN_READER",
    "PYTHON_FLOOR",
    "SPEC_FORMAT",
    "SUPPORT",
    "TORCH_TESTED",
    "Change",
    "Support",
    "at_least",
    "release",
]

PLAN_FORMAT: Final = "1.1"
"""The newest plan format that this version knows; a plan names the oldest one that holds it."""

PLAN_MIN_READER: Final = "1.0"
"""The oldest reader that may execute the plans without state that this version writes."""

SPEC_FORMAT: Final = 1
"""Value of the spec's `genie` key."""

CONTROL_PROTOCOL: Final = "1.5"
"""Version of the control service; a session agrees on the lower of both sides' minor versions."""


@dataclass(frozen=True)
class Support:
    """One row of the support matrix.

    `floor` is the oldest version accepted; `tested` the one that CI runs; `why` says where the
    floor comes from.
    """

    name: str
    floor: str
    tested: str
    why: str


SUPPORT: Final[dict[str, Support]] = {
    row.name: row
    for row in (
        Support("python", "3.11", "3.11", "the test tools and tomllib need it"),
        Support("torch", "2.10", "2.13.0", "older ones have known bypasses of weights_only"),
        Support("dpdk", "22.11", "22.11", "the LTS release in Debian 12; Debian 13 has 24.11"),
        Support("grpcio", "1.70", "1.85.1", "as pyproject.toml declares; older: untested"),
    )
}
"""The support matrix. CUDA has no row: it is whatever the torch build brings."""

PYTHON_FLOOR: Final = SUPPORT["python"].floor
TORCH_TESTED: Final = SUPPORT["torch"].tested


@dataclass(frozen=True)
class Change:
    """One dated change of a version constant; `date` is ISO 8601."""

    date: str
    subject: str
    version: str
    change: str


LOG: Final[tuple[Change, ...]] = (
    Change("2026-11-23", "plan", "1.0", "first format"),
    Change("2026-11-23", "spec", "1", "first format"),
    Change("2026-11-23", "control", "1.0", "first protocol"),
    Change("2026-11-23", "python", "3.11", "first support matrix"),
    Change("2026-11-23", "torch", "2.10", "first support matrix"),
    Change("2026-11-23", "dpdk", "22.11", "first support matrix"),
    Change("2026-11-23", "grpcio", "1.70", "first support matrix"),
    Change(
        "2026-11-23",
        "control",
        "1.1",
        "data paths can be named, and say why they were taken; call channels",
    ),
    Change("2026-11-23", "control", "1.2", "outputs can stay on the node for later runs"),
    Change("2026-11-23", "plan", "1.1", "steps move several states on; loops that sample tokens"),
    Change("2026-11-23", "control", "1.3", "clients tell what their lazy device counts"),
    Change("2026-11-23", "control", "1.4", "state between runs; loops that stream their tokens"),
    Change("2026-11-23", "control", "1.5", "a heartbeat that says nothing new has no bytes"),
)
"""Newest last. The last entry of a subject carries its present version; a test holds this."""

_RELEASE = re.compile(r"\s*v?(\d{1,9}(?:\.\d{1,9}){0,7})")


def release(version: str) -> tuple[int, ...]:
    """Return the release numbers that a version starts with: "2.13.0+cpu" → (2, 13, 0).

    Raises:
        ValueError: when the text does not start with a number.
    """
    match = _RELEASE.match(version)
    if match is None:
        raise ValueError(f"{version!r} does not start with a version number")
    return tuple(int(part) for part in match.group(1).split("."))


def at_least(found: str, floor: str) -> bool:
    """Whether version `found` is `floor` or newer, by release numbers; "1.2" equals "1.2.0".

    Raises:
        ValueError: when one of them does not start with a number.
    """
    a, b = release(found), release(floor)
    width = max(len(a), len(b))
    return a + (0,) * (width - len(a)) >= b + (0,) * (width - len(b))
