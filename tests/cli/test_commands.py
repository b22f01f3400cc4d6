"""The commands of the frame: validate, schema, explain, and how any command can fail."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import genie.cli.main as frame
from genie.cli.errors import handle
from genie_schemas.errors import CODES, GenieError, GenieErrors, InternalError, Place
from genie_schemas.spec import spec_json_schema

Run = Callable[..., Any]


def test_help_names_the_commands_that_exist(genie: Run) -> None:
    result = genie("--help")
    assert result.code == 0
    for name in ("validate", "schema", "explain"):
        assert f"  {name} " in result.out
    assert "trace" not in result.out


def test_a_command_whose_module_is_absent_is_absent(
    genie: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(frame._COMMANDS, "later", ("genie.cli.later", "Comes in another release."))
    assert "later" not in genie("--help").out
    assert genie("later").code == 2


@pytest.mark.parametrize("name", [n for n in frame._COMMANDS if n in frame.cli.list_commands(None)])  # type: ignore[arg-type]
def test_every_command_can_be_imported_and_explains_itself(name: str, genie: Run) -> None:
    result = genie(name, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: genie {name}")
    assert len(result.out) > 100


def test_version(genie: Run) -> None:
    assert genie("--version").out.startswith("genie 0.")


def test_no_command_shows_help_on_stderr(genie: Run) -> None:
    result = genie()
    assert (result.code, result.out) == (2, "")
    assert "Commands:" in result.err


def test_validate_says_what_it_read(genie: Run) -> None:
    result = genie("validate", "small.yaml")
    assert result.code == 0
    assert result.out.startswith("small.yaml: valid\n")
    assert "x float32[batch, 3]" in result.out
    assert "batch 1..8" in result.out


def test_validate_json(genie: Run) -> None:
    result = genie("validate", "small.yaml", "--json")
    body = json.loads(result.out)
    assert (result.code, result.err, body["valid"]) == (0, "", True)
    assert body["digest"].startswith("sha256:")
    assert body["content"]["dims"] == {"batch": {"min": 1, "max": 8, "example": 2}}


def test_validate_with_settings(genie: Run) -> None:
    Path("t.yaml").write_text(Path("small.yaml").read_text().replace("max: 8", 'max: "{{ n }}"'))
    assert "batch 1..32" in genie("validate", "t.yaml", "--set", "n=4", "--set", "n=32").out
    assert genie("validate", "t.yaml").code == 4
    wrong = genie("validate", "t.yaml", "--set", "n")
    assert wrong.code == 2
    assert "GEN0124" in wrong.err


def test_invalid_spec(genie: Run) -> None:
    Path("bad.yaml").write_text(Path("small.yaml").read_text().replace("max: 8", "maxx: 8"))
    result = genie("validate", "bad.yaml")
    assert (result.code, result.out) == (4, "")
    assert "bad.yaml:5:16" in result.err
    assert "GEN0110" in result.err
    assert "\x1b" not in result.err


def test_errors_as_json_leave_stdout_parseable(genie: Run) -> None:
    Path("bad.yaml").write_text("genie: 1\nmodel: {}\nport: 7\n")
    result = genie("validate", "bad.yaml", "--json")
    body = json.loads(result.out)
    assert result.code == 4
    assert [e["code"] for e in body["errors"]] == ["GEN0111", "GEN0110"]
    assert body["error"] == body["errors"][0]
    assert body["errors"][1]["place"]["line"] == 3
    assert "GEN0110" in result.err


def test_schema(genie: Run) -> None:
    result = genie("schema", "spec")
    assert json.loads(result.out) == spec_json_schema()
    plan = json.loads(genie("schema", "plan").out)
    assert plan["$schema"].startswith("https://json-schema.org/")
    assert genie("schema", "spce").code == 2


@pytest.mark.parametrize("code", ["GEN0110", "gen0110"])
def test_explain(code: str, genie: Run) -> None:
    result = genie("explain", code)
    assert result.code == 0
    assert result.out.startswith("GEN0110: Unknown key\n")
    assert "Exit status: 4" in result.out


def test_explain_lists_all(genie: Run) -> None:
    assert len(genie("explain").out.splitlines()) == len(CODES)
    assert len(json.loads(genie("explain", "--json").out)["codes"]) == len(CODES)
    assert json.loads(genie("explain", "GEN0110", "--json").out)["exit_code"] == 4


def test_explain_unknown_code_suggests(genie: Run) -> None:
    result = genie("explain", "GEN011")
    assert result.code == 2
    assert "did you mean GEN0110?" in result.err


@pytest.mark.parametrize("info", CODES.values(), ids=CODES.keys())
def test_every_code_is_explained(info: Any, genie: Run) -> None:
    out = genie("explain", info.code).out
    assert out.startswith(f"{info.code}: ")
    assert len(out) > 80
    assert not info.title.endswith(".")


@pytest.mark.parametrize(
    ("args", "needle"),
    [
        (["valdate", "x"], "did you mean 'validate'?"),
        (["validate", "--jsno", "x"], "did you mean '--json'?"),
        (["validate"], "missing argument 'SPEC'"),
        (["validate", "a", "b"], "unexpected extra argument"),
        (["--nonsense"], "no such option"),
    ],
)
def test_usage_errors(args: list[str], needle: str, genie: Run) -> None:
    result = genie(*args)
    assert (result.code, result.out) == (2, "")
    assert "GEN0131" in result.err
    assert needle in result.err


def test_usage_error_as_json(genie: Run) -> None:
    result = genie("validate", "--json")
    assert json.loads(result.out)["error"]["code"] == "GEN0131"
    assert genie("validate", "--", "--json").out == ""


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_args: Any) -> None:
        raise error

    monkeypatch.setattr("genie.spec.load_spec", fail)


@pytest.mark.parametrize(
    "error", [RuntimeError("a\nb"), InternalError("broken", stage="graph"), RecursionError()]
)
def test_a_bug_of_ours(error: Exception, genie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(monkeypatch, error)
    result = genie("validate", "small.yaml")
    assert result.code == 70
    assert "GEN0190" in result.err
    assert "GENIE_DEBUG=1" in result.err
    assert "Traceback" not in result.err


def test_a_crash_report_is_written_when_asked_for(
    genie: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _raising(monkeypatch, RuntimeError("the cause"))
    monkeypatch.setenv("GENIE_DEBUG", "1")
    result = genie("validate", "small.yaml")
    (report,) = (tmp_path / "state" / "genie").iterdir()
    assert result.code == 70
    assert str(report) in result.err
    assert "Traceback" not in result.err
    assert "RuntimeError: the cause" in report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600


def test_a_crash_report_that_cannot_be_written_hides_nothing(
    genie: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _raising(monkeypatch, RuntimeError("the cause"))
    monkeypatch.setenv("GENIE_DEBUG", "1")
    (tmp_path / "state").write_text("a file where the folder should be")
    result = genie("validate", "small.yaml")
    assert result.code == 70
    assert "the cause" in result.err
    assert "could not be written" in result.err


def test_the_systems_own_refusals(genie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "out.json"))
    result = genie("validate", "small.yaml")
    assert result.code == 1
    assert "GEN0192" in result.err
    assert "out.json" in result.err
    assert "no space left" in result.err


def test_interrupted(genie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(monkeypatch, KeyboardInterrupt())
    result = genie("validate", "small.yaml", "--json")
    assert result.code == 130
    assert json.loads(result.out)["error"]["code"] == "GEN0191"


def test_commands_decide_their_exit_status(genie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("explain")
    def command() -> int:
        return 3

    monkeypatch.setattr("genie.cli.explain.command", command)
    assert genie("explain").code == 3


def test_several_errors_end_with_the_first_ones_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors = GenieErrors([GenieError("GEN0125", "a"), GenieError("GEN0110", "b")])
    assert handle(errors, []) == 8
    assert "2 errors" in capsys.readouterr().err


def _command(*args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "genie.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "genie.cli", "schema", "spec"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")


def test_a_closed_pipe_is_quiet_for_errors_too(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "genie.cli", "validate", "--json", str(tmp_path / "no.yaml")],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_ctrl_c(tmp_path: Path) -> None:
    fifo = tmp_path / "spec.yaml"
    os.mkfifo(fifo)
    process = _command("validate", str(fifo))
    descriptor = os.open(fifo, os.O_WRONLY)  # returns once the command reads: it waits for text
    try:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        os.close(descriptor)
    assert (process.returncode, out) == (130, "")
    assert "GEN0191" in err
    assert "Traceback" not in err


def test_help_imports_nothing_heavy() -> None:
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "genie.cli", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    heavy = {"torch", "pydantic", "grpc", "rich", "numpy", "jinja2", "ruamel.yaml", "genie.spec"}
    assert "click" in imported
    assert not imported & heavy


def test_validate_without_templates_loads_no_jinja_and_no_torch(tmp_path: Path) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text("genie: 1\nname: s\ninputs: {x: {dtype: bool, shape: []}}\n")
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "genie.cli", "validate", str(spec)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert not imported & {"torch", "jinja2", "grpc", "numpy"}


def test_place_without_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(file="plan.json", path="steps[3].reads")
    assert handle(GenieError("GEN0101", "x", place, cause="y\nz"), []) == 4
    err = capsys.readouterr().err
    assert "--> plan.json at steps[3].reads" in err
    assert "cause: y\n    z" in err
