"""How the probes read a machine: files below a root, programs on a search path, an interpreter.

Everything goes through one value, so that the tests can describe other machines (a folder for
`/proc` and `/sys`, scripts for the tools) and run the same probes on them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Machine"]


def _user_state() -> Path:
    from platformdirs import user_state_path

    return user_state_path("genie")


@dataclass(frozen=True)
class Machine:
    """A machine to look at; the default is this one.

    `root` is put before absolute paths, `path` is the search path for tools (None: $PATH),
    `python` the interpreter whose packages count, `state` the folder where runs are recorded.
    """

    root: Path = Path("/")
    path: str | None = None
    python: str = sys.executable
    state: Path = field(default_factory=_user_state)

    def file(self, path: str) -> Path:
        """Where the absolute `path` of that machine lies here."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str:
        """The first 64 KiB of a file, stripped; "" when it cannot be read."""
        try:
            with self.file(path).open("rb") as stream:
                return stream.read(65536).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def entries(self, path: str) -> list[Path]:
        """The entries of a folder, sorted; empty when it is not there."""
        try:
            return sorted(self.file(path).iterdir())
        except OSError:
            return []

    def run(self, tool: str, *arguments: str, timeout: float = 20.0) -> str | None:
        """Standard output of a tool, stripped; None when it is absent, fails or takes too long."""
        found = shutil.which(tool, path=self.path)
        if found is None:
            return None
        try:
            done = subprocess.run(
                [found, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def ask_python(self, code: str, timeout: float = 60.0) -> tuple[bool, str]:
        """Run `code` in a child interpreter: (True, its stdout) or (False, its last error line).

        `-P` keeps the current folder off its path, as in the installed commands.
        """
        try:
            done = subprocess.run(
                [self.python, "-P", "-c", code],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False, f"no answer within {timeout:.0f} s"
        except OSError as error:
            return False, str(error)
        if done.returncode == 0:
            return True, done.stdout.strip()
        lines = done.stderr.strip().splitlines()
        return False, lines[-1] if lines else f"exit status {done.returncode}"

    def apt(self, *packages: str) -> str:
        """The command that installs Debian packages on that machine."""
        return as_root(f"apt-get install {' '.join(packages)}")


def as_root(command: str) -> str:
    """`command` as this user must spell it to run it as root."""
    return command if os.geteuid() == 0 else f"sudo {command}"
