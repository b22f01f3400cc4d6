"""What the command line itself refuses, as it is shown; kept under golden/errors/cli."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from genie.testing.snapshots import golden_files
from tests.golden.support import GOLDEN

Run = Callable[..., Any]

# name → (exit status, code, genie.toml, arguments)
CASES: dict[str, tuple[int, str, str, list[str]]] = {
    "command-unknown": (2, "GEN0131", "", ["compil", "model.py"]),
    "option-unknown": (2, "GEN0131", "", ["validate", "--jsno", "small.yaml"]),
    "argument-missing": (2, "GEN0131", "", ["validate"]),
    "code-unknown": (2, "GEN0132", "", ["explain", "GEN0299"]),
    "configuration-unknown-key": (
        2,
        "GEN0130",
        "[execute]\ntransprot = 'shm'\n",
        ["execute", "x.json"],
    ),
    "configuration-syntax": (2, "GEN0130", "[execute\n", ["validate", "small.yaml"]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_clear(name: str, genie: Run, snapshot: SnapshotAssertion) -> None:
    status, code, settings, args = CASES[name]
    if settings:
        Path("genie.toml").write_text(settings)
    result = genie(*args)
    assert (result.code, result.out) == (status, "")
    assert f"error {code}" in result.err
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "cli", "txt"))
    text = result.err.replace(f"{Path.cwd()}/", "")
    assert text == golden(name=name)
