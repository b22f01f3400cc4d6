"""Which recorder a program gets: the extension, or, where it is not built, the one in Python."""

from __future__ import annotations

import os
import subprocess
import sys

_MISSING = "import sys; sys.modules['genie.lazy._lazy'] = None\n"
_IMPORT = """\
from genie.cli.render import render_error
from genie_schemas.errors import GenieError
try:
    import genie.lazy
except GenieError as error:
    print(render_error(error, colour=False))
"""


def _run(code: str, recorder: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "GENIE_LAZY_RECORDER"}
    if recorder is not None:
        env["GENIE_LAZY_RECORDER"] = recorder
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_without_the_extension_programs_are_recorded_in_python() -> None:
    done = _run(
        _MISSING + "import torch, genie.lazy\n"
        "print((torch.ones(2, device='genie') + 1).tolist())\n"
        "print(genie.lazy._setup.recorder().__name__)\n"
    )
    assert done.stdout.split("\n")[:2] == ["[2.0, 2.0]", "genie.lazy._python"], done.stderr[-2000:]
    assert done.stderr.count("recorded in Python") == 1
    assert "the extension is not installed" in done.stderr


def test_an_unknown_recorder_is_refused() -> None:
    done = _run(_IMPORT, "fortran")
    assert done.stdout.splitlines() == [
        "error GEN0264: GENIE_LAZY_RECORDER is 'fortran'",
        "  remedy: set it to one of auto, native, python, or leave it out",
        "",
        "To read more: genie explain GEN0264",
    ], done.stderr[-2000:]
