"""Standard streams that are closed or full: a status and a message, never a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

GOOD, BAD = "explain GEN0101", "plan show nothing.json --json"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (f"{GOOD} >&-", 0),
        (f"{BAD} >&-", 4),
        (f"{GOOD} >/dev/full", 1),
        (f"{BAD} >/dev/full", 4),
        (f"{GOOD} | head -n 1 >/dev/null", 0),
    ],
)
def test_output_that_nobody_takes(command: str, status: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m genie.cli {command}', sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert ("GEN0300" in done.stderr) == ("nothing.json" in command)
