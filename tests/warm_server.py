"""The process that `tests.warm` starts: it has imported torch, and is forked for each child."""

from __future__ import annotations

import array
import contextlib
import fcntl
import importlib
import json
import os
import select
import socket
import sys
from typing import Any


def serve(address: str) -> None:
    """Import what a child imports, then be one for each that calls, until standard input ends."""
    import safetensors.torch  # noqa: F401

    import genie.capture.entries
    import genie.capture.store
    import genie.graph.entries
    import genie.model.loader  # noqa: F401

    with socket.socket(socket.AF_UNIX) as here:
        here.bind(address)
        here.listen()
        print("ready", flush=True)
        while here.fileno() in select.select([here.fileno(), 0], [], [])[0]:
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
    """Be the child in the caller's surroundings; does not return."""
    status = 70
    try:
        # They wait for their own numbers above all of these, and above those that are closed here.
        free = 1 + max([*said["numbers"], *map(int, os.listdir("/proc/self/fd"))])
        held = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in fds]
        os.closerange(3, free)
        for fd, number in zip(held, said["numbers"], strict=True):
            os.dup2(fd, number)
        os.closerange(free, held[-1] + 1)
        os.chdir(said["folder"])
        os.environ.clear()
        os.environ.update(said["environ"])
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        status = importlib.import_module(said["module"]).main()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
    os._exit(0)  # nothing of torch's needs to be torn down
