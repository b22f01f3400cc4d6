"""Unmodified programs against a daemon in another process: only the device's name differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemons import Daemons

SCRIPTS = Path(__file__).parent / "scripts"


def _run(script: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", ["classify.py", "train.py"])
def test_a_program_on_a_daemon_says_what_it_says_on_a_cpu(
    script: str, daemons: Daemons, tmp_path: Path
) -> None:
    daemon = daemons.start()
    home = {"XDG_STATE_HOME": str(tmp_path)}
    wanted = _run(script, DEVICE="cpu", **home)
    found = _run(script, DEVICE="genie", GENIE_ENDPOINT=daemon.endpoint, **home)
    _same(found, wanted)
    status = subprocess.run(
        [Path(sys.executable).parent / "genie", "status", "--on", daemon.endpoint, "--json"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    shown = json.loads(status.stdout)
    assert shown["runs"] >= 1
    assert sum(device["constant_bytes"] for device in shown["devices"]) == 0  # its session ended


def _same(found: str, wanted: str) -> None:
    for a, b in zip(found.split(), wanted.split(), strict=True):
        assert abs(float(a) - float(b)) <= 2e-4, (found, wanted)


def test_a_daemon_that_is_not_there_is_named(tmp_path: Path) -> None:
    code = (
        "import torch, genie.lazy\n"
        "from genie_schemas.errors import GenieError\n"
        "try:\n"
        "    torch.ones(5000).to('genie')\n"
        "except GenieError as error:\n"
        "    print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "GENIE_ENDPOINT": f"unix://{tmp_path}/none.sock"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.strip() == "GEN0501", done.stderr[-2000:]


def test_the_end_of_a_program_right_after_a_backward_pass_is_its_own() -> None:
    text = (
        "import torch, genie.lazy\n"
        "x = torch.ones(3, 3).to('genie').requires_grad_()\n"
        "(x @ x).sum().backward()\n"
        "raise SystemExit(3)\n"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, timeout=100, check=False
        )
        assert (done.returncode, done.stderr) == (3, "")
