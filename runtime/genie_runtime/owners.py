"""Who owns an epoch of a ledger, and whether it lives: one locked file for each process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path


class Owners:
    """The lock files `<epoch>.lock` of a folder. The kernel drops a lock with its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fd = -1
        self._mine = 0

    def begin(self, epoch: int) -> None:
        """Own an epoch for as long as this process lives. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path(epoch), flags, 0o600)
        self._mine = epoch
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def end(self) -> None:
        """Give the epoch up; a second time does nothing."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._path(self._mine).unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def alive(self, epoch: int) -> bool:
        """Whether another process owns the epoch and lives: it holds the lock on its file."""
        try:
            fd = os.open(self._path(epoch), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(fd)

    def known(self, epoch: int) -> bool:
        """Whether the epoch's file is there: a process that ended well removes its own."""
        return self._path(epoch).exists()

    def dead(self, mine: int) -> set[int]:
        """The epochs of processes that died without giving them up."""
        found = (int(p.stem) for p in self.folder.glob("*.lock") if p.stem.isdecimal())
        return {epoch for epoch in found if epoch != mine and not self.alive(epoch)}

    def bury(self, epochs: Iterable[int]) -> None:
        """Remove the files of dead owners."""
        for epoch in epochs:
            self._path(epoch).unlink(missing_ok=True)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.lock"
