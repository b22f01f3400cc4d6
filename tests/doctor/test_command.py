"""`genie doctor` as a person and as a script meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from genie.cli.doctor import command
from genie.doctor import Check
from genie_schemas.errors import GenieError

FINE = Check("python", "3.11.7", "3.11 or newer", True, None)
ABSENT = Check("dpdk", "not installed", "optional: 22.11", True, "apt-get install dpdk-dev", False)
BROKEN = Check("torch", "2.9.1", "2.10 or newer", False, "pip install torch==2.13.0", False)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """The machine's checks; a test appends what it has."""
    checks: list[Check] = []

    def diagnose(*, strict: bool) -> tuple[Check, ...]:
        return tuple(check.strict() if strict else check for check in checks)

    monkeypatch.setattr("genie.doctor.diagnose", diagnose)
    return checks


def test_json_of_this_machine_has_the_contract_s_fields() -> None:
    result = CliRunner().invoke(command, ["--json"])
    checks: list[dict[str, Any]] = json.loads(result.stdout)["checks"]
    assert result.exit_code == (0 if all(check["ok"] for check in checks) else 1)
    assert all(list(c) == ["name", "found", "required", "ok", "remedy"] for c in checks)


def test_table(found: list[Check]) -> None:
    found += [FINE, ABSENT]
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ok      python  3.11.7  [3.11 or newer]",
        "absent  dpdk    not installed  [optional: 22.11]",
        "                to mend: apt-get install dpdk-dev",
    ]


def test_a_required_part_missing_is_an_error_with_its_remedy(found: list[Check]) -> None:
    found += [FINE, ABSENT, BROKEN]
    result = CliRunner().invoke(command, [])
    assert isinstance(result.exception, GenieError)
    assert result.exception.code == "GEN0590"
    assert result.exception.exit_code == 1
    assert str(result.exception) == (
        "GEN0590: 1 of 3 checks fail: torch\n"
        "  cause: this machine is outside the support matrix\n"
        "  remedy: pip install torch==2.13.0"
    )
    assert "FAILS   torch   2.9.1  [2.10 or newer]" in result.stdout


def test_strict_counts_optional_parts(found: list[Check]) -> None:
    found += [FINE, ABSENT]
    result = CliRunner().invoke(command, ["--strict", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["checks"][1] == {
        "name": "dpdk",
        "found": "not installed",
        "required": "22.11",
        "ok": False,
        "remedy": "apt-get install dpdk-dev",
    }


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_on_a_terminal_only(
    found: list[Check], monkeypatch: pytest.MonkeyPatch, no_color: bool
) -> None:
    found += [FINE]
    monkeypatch.setattr("genie.cli.doctor._on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1" if no_color else "")
    result = CliRunner().invoke(command, [], color=True)
    assert ("\x1b[32mok" in result.stdout) is not no_color


def test_doctor_does_not_import_torch() -> None:
    code = (
        "import sys; from genie.cli.doctor import command; command(['--json'], "
        "standalone_mode=False); sys.exit(70 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=120, check=False
    )
    assert done.returncode == 0
