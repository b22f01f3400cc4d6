"""Children of the compiler that start from a process which has imported torch already.

A compilation starts a new interpreter, most of whose time goes into importing the same modules
again; the golden tests make some sixty. Here the first imports them and is forked for each. What
the child does is the compiler's own; `tests/model/test_child.py` and the tests of `genie compile`
start it as users do.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_READY = "ready\n"
_PATIENCE = 30.0  # seconds
_FIRST_FREE = 200
"""File descriptors wait above this for their own numbers."""

# What stands for the interpreter: it hands over its own surroundings, waits, and ends as the child
# did. It imports next to nothing.
_CALL = """\
#!{python} -IS
import array, json, os, socket, sys
assert sys.argv[1:] == ["-P", "-m", "genie.driver_child"], sys.argv
listed = map(int, os.listdir("/proc/self/fd"))
numbers = [n for n in listed if os.path.exists(f"/proc/self/fd/{{n}}")]
with socket.socket(socket.AF_UNIX) as there:
    there.connect({address!r})
    said = {{"numbers": numbers, "folder": os.getcwd(), "environ": dict(os.environ)}}
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


def serve(address: str) -> None:
    """Import what a child imports, then be one for each that calls, until standard input ends."""
    import genie.capture.entries
    import genie.capture.store
    import genie.graph.entries
    import genie.model.loader  # noqa: F401

    with socket.socket(socket.AF_UNIX) as here:
        here.bind(address)
        here.listen()
        print(_READY, end="", flush=True)
        while here in select.select([here, 0], [], [])[0]:
            connection, _ = here.accept()
            with connection, connection.makefile("rw") as lines:
                room = socket.CMSG_SPACE(64 * array.array("i").itemsize)
                _, messages, _, _ = connection.recvmsg(1, room)
                fds = array.array("i")
                fds.frombytes(messages[0][2])
                said = json.loads(lines.readline())
                child = os.fork()
                if child == 0:
                    _become(said, list(fds))
                for fd in fds:
                    os.close(fd)
                _, status = os.waitpid(child, 0)
                with contextlib.suppress(BrokenPipeError):  # who called may have been killed
                    lines.write(f"{status}\n")
                    lines.flush()


def _become(said: dict[str, Any], fds: list[int]) -> None:
    """Be the compiler's child in the caller's surroundings; does not return."""
    from genie.driver_child import main

    status = 70
    try:
        held = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for fd in fds]
        os.closerange(3, _FIRST_FREE)
        for fd, number in zip(held, said["numbers"], strict=True):
            os.dup2(fd, number)
        os.closerange(_FIRST_FREE, 4 * _FIRST_FREE)
        os.chdir(said["folder"])
        os.environ.clear()
        os.environ.update(said["environ"])
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        status = main()
        sys.stderr.flush()
    finally:
        os._exit(status)


@contextlib.contextmanager
def interpreter(folder: Path) -> Iterator[Path]:
    """The program that stands for the interpreter, in an empty folder."""
    address = str(folder / "s")
    environment = {k: v for k, v in os.environ.items() if k != "COVERAGE_PROCESS_CONFIG"}
    with subprocess.Popen(
        [sys.executable, "-P", __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as server:
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            assert server.stdout.readline() == _READY
            program = folder / "python"
            program.write_text(_CALL.format(python=sys.executable, address=address))
            program.chmod(0o700)
            yield program
            server.stdin.close()  # which ends it
            server.wait(_PATIENCE)
        finally:
            server.kill()


if __name__ == "__main__":
    serve(sys.argv[1])
    os._exit(0)  # nothing of torch's needs to be torn down
