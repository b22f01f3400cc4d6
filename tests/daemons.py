"""Real daemons as child processes, for tests: private sockets, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

START = 20.0


@dataclass
class Daemon:
    """One genied; `endpoint` is what clients name."""

    folder: Path
    name: str
    endpoint: str
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    @property
    def state_dir(self) -> Path:
        return self.folder / self.name

    def workers(self) -> list[psutil.Process]:
        """The executor processes of the daemon."""
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if "genie_runtime.executors.worker" in " ".join(_cmdline(child))
        ]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@dataclass
class Daemons:
    """Starts daemons in a short folder (Unix socket paths are limited) and ends them all."""

    folder: Path
    running: list[Daemon] = field(default_factory=list)

    def start(
        self,
        name: str = "d0",
        *argv: str,
        listen: str | None = None,
        device: str = "cpu:memory=1GiB",
        env: dict[str, str] | None = None,
        wait: bool = True,
        netns: str | None = None,
    ) -> Daemon:
        """Start a daemon on `<folder>/<name>.sock`, with its state in `<folder>/<name>`.

        It runs in the network namespace `netns` if one is named.
        """
        endpoint = listen or f"unix://{self.folder}/{name}.sock"
        path = self.folder / f"{name}.log"
        before = path.stat().st_size if path.exists() else 0
        with path.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(("ip", "netns", "exec", netns) if netns else ()),
                    *(sys.executable, "-m", "genie_runtime.main"),
                    *("--listen", endpoint, "--state-dir", str(self.folder / name)),
                    *("--device", device, "--threads", "1", *argv),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=self.folder,
            )
        daemon = Daemon(self.folder, name, endpoint, process)
        self.running.append(daemon)
        if wait:
            until(lambda: '"listening"' in daemon.log[before:] or process.poll() is not None, START)
            assert process.poll() is None, daemon.log
        return daemon

    def close(self) -> None:
        for daemon in self.running:
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGCONT)
                daemon.process.kill()
            daemon.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for a condition; fails the test when it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def daemons() -> Iterator[Daemons]:
    found = Daemons(Path(tempfile.mkdtemp(prefix="gd-")))
    yield found
    found.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Private XDG directories: nothing of the machine's user is read or written."""
    for name in ("STATE", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path
