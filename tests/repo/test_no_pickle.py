"""Nothing that Genie does unpickles: each interpreter of a command, children too, is audited."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.paths import ROOT

AUDIT = Path(__file__).parent / "audit"
GENIE = Path(sys.executable).parent / "genie"
SPEC = ROOT / "plans/digits/digits.yaml"


def audited(tmp_path: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command under the audit hook (exit status 99: something was unpickled)."""
    return subprocess.run(
        [*map(str, command)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(AUDIT), "XDG_STATE_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_hook_sees_a_pickle_in_a_child_process(tmp_path: Path) -> None:
    load = "import pickle, datetime; pickle.loads(pickle.dumps(datetime.date))"
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {load!r}]))"
    done = audited(tmp_path, sys.executable, "-c", code)
    assert done.returncode == 99
    assert "AUDIT: pickle.find_class" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("validate", SPEC), ("doctor", "--json"), ("schema", "spec"), ("explain",)]
)
def test_small_commands(tmp_path: Path, arguments: tuple[str | Path, ...]) -> None:
    done = audited(tmp_path, GENIE, *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_compile_and_execute(tmp_path: Path) -> None:
    model, plan = ROOT / "plans/digits/model.py", tmp_path / "digits.plan.json"
    done = audited(tmp_path, GENIE, "compile", model, "--spec", SPEC, "-o", plan)
    assert done.returncode == 0, done.stderr
    inputs = ROOT / "plans/digits/heldout.safetensors"
    done = audited(
        tmp_path, GENIE, "execute", plan, "--inputs", inputs, "--compare", model, "--spec", SPEC
    )
    assert done.returncode == 0, done.stderr
