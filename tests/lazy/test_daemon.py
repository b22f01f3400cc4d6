"""Unmodified programs against a daemon in another process: only the device's name differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genie_schemas.messages import LazyCounters
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
    stats = str(tmp_path / "stats.json")
    found = _run(
        script, DEVICE="genie", GENIE_ENDPOINT=daemon.endpoint, GENIE_LAZY_STATS=stats, **home
    )
    _same(found, wanted)
    status = subprocess.run(
        [Path(sys.executable).parent / "genie", "status", "--on", daemon.endpoint, "--json"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    shown = json.loads(status.stdout)
    assert shown["runs"] >= 1
    counted = json.loads((tmp_path / "stats.json").read_text())
    for name in LazyCounters.model_fields:  # the last of them came with the session's end
        assert shown["telemetry"][f"lazy_{name}"] == counted[name], name
    assert shown["lazy"] == []
    lines = [point["line"] for point in counted["sync_points"]]
    assert any(str(SCRIPTS / script) in line for line in lines), lines
    assert sum(device["constant_bytes"] for device in shown["devices"]) == 0  # its session ended


def _same(found: str, wanted: str) -> None:
    for a, b in zip(found.split(), wanted.split(), strict=True):
        assert abs(float(a) - float(b)) <= 2e-4, (found, wanted)


CONNECTED = """\
import sys, torch, genie, genie.lazy
with genie.connect(sys.argv[1]) as session:
    x = torch.ones(5000).to("genie")
print((x + 1).sum().item())  # its tensors are in a session of the lazy device's own
try:
    genie.lazy.connect(sys.argv[1])
except Exception as error:
    print(error.code, error.cause == f"its tensors lie on {sys.argv[1]}")
"""


def test_the_daemon_that_genie_connect_names_is_the_lazy_devices_too(
    daemons: Daemons, tmp_path: Path
) -> None:
    daemon = daemons.start()
    done = subprocess.run(
        [sys.executable, "-P", "-c", CONNECTED, daemon.endpoint],
        env={
            **os.environ,
            "XDG_STATE_HOME": str(tmp_path),
            "GENIE_ENDPOINT": f"unix://{tmp_path}/none.sock",  # what is said goes before it
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.split("\n") == ["10000.0", "GEN0263 True", ""], done.stderr[-2000:]


def test_counters_that_cannot_be_written_cost_the_program_nothing(tmp_path: Path) -> None:
    code = "import torch, genie.lazy; print(torch.ones(2).to('genie').sum().item())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={
            **os.environ,
            "XDG_STATE_HOME": str(tmp_path),
            "GENIE_LAZY_STATS": f"{tmp_path}/none/stats.json",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "2.0\n"), done.stderr[-2000:]
    assert f"GENIE_LAZY_STATS: the counters cannot be written to {tmp_path}/none" in done.stderr


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
        said = [line for line in done.stderr.splitlines() if "recorded in Python" not in line]
        assert (done.returncode, said) == (3, [])
