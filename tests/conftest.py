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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    missing = {}
    if os.geteuid() != 0:
        missing["root"] = pytest.mark.skip(reason="needs root")
    if not Path("/proc/driver/nvidia/version").exists():
        missing["cuda"] = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        for name, skip in missing.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)
