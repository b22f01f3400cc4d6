"""CI calls the targets that people call, and the daemon's unit is as hardened as it says."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.repo.paths import ROOT

UNIT = ROOT / "deploy/systemd/genied.service"


def load(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text())


def make(*arguments: str) -> str:
    """What make would run for a target, also when the tests themselves run under make."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k not in outer}, "GENIE_VENV": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("target", ["demo", "test", "test-all", "check", "bench"])
def test_every_target_makes_the_environment_first(target: str) -> None:
    first, *rest = make(target).splitlines()
    assert first == ".ci/setup"
    assert rest


def test_only_test_all_runs_the_sweeps() -> None:
    assert "not sweep" in make("test")
    assert "not sweep" not in make("test-all")


def test_the_virtual_environment_may_lie_elsewhere() -> None:
    assert ".venv/bin/ruff check" in make("check")
    assert "/elsewhere/bin/ruff check" in make("check", "GENIE_VENV=/elsewhere")


def test_ci_runs_checks_and_tests() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make check test </dev/null" in script
    for name in ("run", "setup", "demo"):
        assert os.access(ROOT / ".ci" / name, os.X_OK)


def test_the_workflow_calls_the_same_targets() -> None:
    jobs = load(".github/workflows/ci.yml")["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]["include"]
    assert {(row["device"], row["dpdk"]) for row in matrix} == {
        ("cpu", "off"),
        ("cpu", "on"),
        ("cuda", "off"),
        ("cuda", "on"),
    }
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in commands
    assert "make demo" in commands
    assert not any("pytest" in command or "ruff" in command for command in commands)
    for target in re.findall(r"make ([a-z-]+)", "\n".join(commands)):
        assert make(target), target


def test_hooks_run_what_check_runs() -> None:
    (local,) = load(".pre-commit-config.yaml")["repos"]
    tools = {hook["entry"].split()[0] for hook in local["hooks"]}
    planned = make("check")
    assert all(tool in planned for tool in tools)
    assert all(hook["language"] == "system" for hook in local["hooks"])


def test_unit_is_hardened() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    service = parser["Service"]
    expected = {
        "Type": "notify",
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "KillSignal": "SIGTERM",
        "KillMode": "mixed",
    }
    assert {key: service[key] for key in expected} == expected
    assert service["CapabilityBoundingSet"] == ""
    assert service["MemoryMax"]
    assert service["SystemCallFilter"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_unit_exposure_is_at_most_2() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    match = re.search(r"exposure level for genied.service: ([\d.]+)", done.stdout)
    assert match, done.stdout + done.stderr
    assert float(match.group(1)) <= 2.0
