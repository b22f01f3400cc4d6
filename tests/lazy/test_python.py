"""The recorder in Python: every test of this folder holds with it, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genie.lazy._setup import recorder

HERE = Path(__file__).parent
FILES = [
    f"test_{name}.py"
    for name in "bags composed derivatives device recorders recurrent saving training views".split()
]


pytestmark = pytest.mark.skipif(
    recorder().__name__ == "genie.lazy._python", reason="they run with it already"
)


def passes(*arguments: str) -> None:
    """Run tests with the recorder in Python; each of them holds."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-q", "-n0", "-p", "no:cacheprovider"],
        cwd=HERE.parent.parent,
        env={**os.environ, "GENIE_LAZY_RECORDER": "python", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert re.search(r"^\d+ passed(, \d+ deselected)? in", last), done.stdout[-2000:]


@pytest.mark.slow
def test_the_device_is_the_same_with_the_recorder_in_python() -> None:
    passes(*(str(HERE / name) for name in FILES))


@pytest.mark.slow
def test_labels_are_the_same_with_the_recorder_in_python() -> None:
    chosen = "nano_gpt or reshaped_vit or cached_decode or clip or not exported"
    passes(str(HERE / "test_semantics.py"), "-k", chosen)
