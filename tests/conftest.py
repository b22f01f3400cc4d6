"""What holds for every test: property tests without a clock, and markers that ask for a machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's business; `timeout` in pyproject.toml ends what hangs.
settings.register_profile("genie", deadline=None)
settings.load_profile("genie")


# A shell starts what runs in the background with interrupts ignored, and every child of a test
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take minutes: test processes that share the work begin with them, or one process goes
# on with the last of them while the others have nothing left to do.
_LONG = (
    "native/test_cpp.py",
    "testing/test_plugin.py",
    "golden/",
    "transport/contract/",
    "runtime/test_faults.py",
    "runtime/test_fabric.py",
    "bench/",
)


def _short(item: pytest.Item) -> bool:
    return not any(f"tests/{part}" in item.nodeid for part in _LONG)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; skip what this machine cannot run, with the reason."""
    items.sort(key=_short)
    missing = {}
    if os.geteuid() != 0:
        missing["root"] = pytest.mark.skip(reason="needs root")
    if not Path("/proc/driver/nvidia/version").exists():
        missing["cuda"] = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        for name, skip in missing.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)
