"""What the CLI tests share: `genie` in this process, with nothing of the user's around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from genie.cli.main import main

SPEC = """\
genie: 1
name: small
inputs:
  x: {dtype: float32, shape: [batch, 3]}
dims: {batch: {max: 8}}
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def genie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs `genie ARGS…` in an empty folder that also holds its configuration and state."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("GENIE_DEBUG", raising=False)
    (work / "small.yaml").write_text(SPEC)

    def run(*args: str) -> Result:
        capsys.readouterr()
        code = main(args)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
