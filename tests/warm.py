"""Children of Genie that start from a process which has imported torch already.

Compiling a model, and running one eagerly beside its plan, start a new interpreter each, most of
whose time goes into importing the same modules again: some hundred times in these tests. Here the
first imports them and is forked for each. What a child does is Genie's own;
other tests of `tests/model/test_child.py` and of `genie compile` start it as users do.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_CHILDREN = [["-P", "-m", module] for module in ("genie.driver_child", "genie.model.eager")]
"""The interpreter's arguments that start a child; with others it is the interpreter itself."""
_SERVER = Path(__file__).with_name("warm_server.py")
_PATIENCE = 30.0  # seconds

# What stands for the interpreter: it hands over its own surroundings, waits, and ends as the child
# did. It imports next to nothing.
_CALL = """\
#!{python} -IS
import array, json, os, socket, sys
if sys.argv[1:] not in {children!r}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
listed = map(int, os.listdir("/proc/self/fd"))
numbers = [n for n in listed if os.path.exists(f"/proc/self/fd/{{n}}")]
with socket.socket(socket.AF_UNIX) as there:
    there.connect({address!r})
    said = {{"module": sys.argv[3], "numbers": numbers}}
    said |= {{"folder": os.getcwd(), "environ": dict(os.environ)}}
    with there.makefile("rw") as lines:
        fds = array.array("i", numbers)
        there.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        lines.write(json.dumps(said) + "\\n")
        lines.flush()
        status = int(lines.readline())
if os.WIFSIGNALED(status):
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
"""


@contextlib.contextmanager
def interpreter() -> Iterator[Path]:
    """The program that stands for the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "COVERAGE_PROCESS_CONFIG"}
    with (
        tempfile.TemporaryDirectory(prefix="genie-warm-") as folder,
        subprocess.Popen(
            [sys.executable, "-P", str(_SERVER), f"{folder}/s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        ) as server,
    ):
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            program = Path(folder) / "python"
            program.write_text(
                _CALL.format(python=sys.executable, address=f"{folder}/s", children=_CHILDREN)
            )
            program.chmod(0o700)
            yield program
            server.stdin.close()  # which ends it
            server.wait(_PATIENCE)
        finally:
            server.kill()


@pytest.fixture(scope="session")
def warm_interpreter() -> Iterator[Path]:
    """One process that has torch, for all that this one tests."""
    with interpreter() as program:
        yield program


@pytest.fixture
def warm(warm_interpreter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that load a model start from a process that has imported torch."""
    monkeypatch.setattr(sys, "executable", str(warm_interpreter))
