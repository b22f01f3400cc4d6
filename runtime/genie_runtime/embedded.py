"""The runtime inside the caller's process: a node with executors in threads, without a port."""

from __future__ import annotations

import os
from pathlib import Path

from genie_runtime.config import Limits
from genie_runtime.core import Core
from genie_runtime.devices import parse_devices
from genie_runtime.node import Node
from genie_runtime.ports import DeviceSpec, ExecutorPort
from genie_schemas.errors import GenieError, Place


def state_home() -> Path:
    """Where this user's state lies: $XDG_STATE_HOME/genie, by default ~/.local/state/genie."""
    from platformdirs import user_state_path

    return user_state_path("genie", appauthor=False)


def default_threads() -> int:
    """Threads that an executor computes with: physical cores that this process may use.

    The same number that torch takes by itself, so that results equal a script's to the last bit.
    """
    import psutil

    usable = len(os.sched_getaffinity(0))
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def embedded_node(
    *,
    devices: list[str] | None = None,
    state_dir: Path | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
) -> Node:
    """A node in this process. Several processes may have one on the same state directory.

    `devices` are specifications as genied takes them; by default one CPU device, and the CUDA
    devices that the machine has. Raises GEN0512, GEN0513 or GEN0506.
    """
    specs = parse_devices(devices or [])
    folder = state_dir or state_home() / "embedded"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GenieError(
            "GEN0506",
            "the state directory cannot be made",
            Place(file=str(folder)),
            error.strerror,
            "set XDG_STATE_HOME to a folder of your own",
        ) from None
    count = threads or default_threads()

    def executor(device: DeviceSpec) -> ExecutorPort:
        from genie_runtime.executors.inprocess import InProcessExecutor

        return InProcessExecutor(device, threads=count)

    return Node(Core(specs, executor, folder, threads=count, limits=limits))
