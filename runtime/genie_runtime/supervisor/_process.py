"""One worker process: its sockets, its liveness, its end."""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from genie_runtime.executors import messages
from genie_runtime.ports import DeviceSpec
from genie_schemas.errors import GenieError

__all__ = ["Liveness", "WorkerProcess"]

PING_SECONDS = 0.25
SILENCE_SECONDS = 1.0
"""A worker that is silent for so long is looked at: with two PING_SECONDS, found within 1.5 s."""

BUSY_SECONDS = 30.0
"""Silence is tolerated for so long while the process uses CPU time (one long call into C)."""

START_SECONDS = 120.0
"""Silence is tolerated for so long before the first report: torch may come from a cold disk."""

OVERDUE_SECONDS = 2.0
"""A kernel that runs on for so long after its step's deadline is ended with its process."""

_RECORD = struct.Struct("<Q")
_CHUNK = 1 << 16


class WorkerProcess:
    """A spawned worker. Raises OSError when it cannot be spawned.

    `send` may be called from any thread, `read` from one, the rest from the thread that made it;
    that thread must outlive the worker, for Linux ends the worker when it ends.
    """

    def __init__(self, spec: DeviceSpec, threads: int, log_dir: Path | None) -> None:
        self._control, control = socket.socketpair()
        self._life, life = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._life.setblocking(False)
        recorder = os.memfd_create("genie-recorder", os.MFD_CLOEXEC)
        try:
            os.ftruncate(recorder, mmap.PAGESIZE)
            self._record = mmap.mmap(recorder, mmap.PAGESIZE)
            boot = messages.Boot(
                id=spec.id,
                device=spec.kind,
                index=spec.index,
                memory_bytes=spec.memory_bytes,
                threads=threads,
                parent=os.getpid(),
                control=control.fileno(),
                life=life.fileno(),
                recorder=recorder,
            )
            self._popen = self._spawn(boot, log_dir)
        except BaseException:
            self._control.close()
            self._life.close()
            raise
        finally:
            control.close()
            life.close()
            os.close(recorder)
        self.pid = self._popen.pid
        self._decoder = messages.FrameDecoder()
        self._sending = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._life, selectors.EVENT_READ)

    def _spawn(self, boot: messages.Boot, log_dir: Path | None) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if boot.threads:
            # Before torch is there: libraries read these once.
            count = str(boot.threads)
            environment |= {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        with contextlib.ExitStack() as stack:
            log = sys.stderr.fileno() if log_dir is None else _log_file(stack, log_dir, boot.id)
            # -P: a file named like a module in the current folder must not shadow it.
            return subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "genie_runtime.executors.worker"),
                    boot.model_dump_json(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                close_fds=True,
                pass_fds=(boot.control, boot.life, boot.recorder),
                start_new_session=True,
            )

    def send(self, message: messages.Command, blob: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a command, and descriptors after it. Raises OSError when the worker is gone.

        Blocks while the worker does not read; a worker that hangs is ended, which ends this too.
        """
        frame = messages.encode(message, blob)
        with self._sending:
            self._control.sendall(frame)
            if fds:
                socket.send_fds(self._control, [b"\0"], fds)

    def read(self) -> list[messages.Report] | None:
        """Wait for reports; None when the worker hung up.

        Raises GenieError GEN0454 when the worker sends what no worker sends.
        """
        try:
            data = self._control.recv(_CHUNK)
        except OSError:
            return None
        return self._decoder.feed(data) if data else None

    def listen(self, seconds: float) -> tuple[list[int], bool]:
        """Wait up to `seconds` for signs of life: (overdue ms of each pong, whether it hung up)."""
        pongs: list[int] = []
        if self._selector.select(seconds):
            try:
                while len(data := self._life.recv(messages.PONG.size)) == messages.PONG.size:
                    pongs.append(messages.PONG.unpack(data)[1])
                return pongs, True
            except BlockingIOError:
                pass
            except OSError:
                return pongs, True
        return pongs, False

    def ping(self, number: int) -> None:
        """Ask for a sign of life; never blocks."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._life.send(messages.PING.pack(number))

    def ticket(self) -> int:
        """The run that it computes, or computed when it died; 0 for none."""
        return int(_RECORD.unpack_from(self._record)[0])

    def activity(self) -> tuple[str, int]:
        """Its state as /proc shows it ("R", "S", "T", …) and the clock ticks it has used."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return "X", 0
        fields = stat.rpartition(b")")[2].split()
        return fields[0].decode("ascii"), int(fields[11]) + int(fields[12])

    def hang_up(self) -> None:
        """Ask it to end: it sees the end of its sockets."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._life.shutdown(socket.SHUT_RDWR)

    def end(self, patience: float) -> str:
        """End it, by force after `patience` seconds, give everything back, and say how it ended."""
        self.hang_up()
        try:
            status = self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            status = self._popen.wait()
        self._selector.close()
        self._control.close()
        self._life.close()
        if status >= 0:
            return f"it ended with status {status}"
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-status).name}"
        return f"it was ended by signal {-status}"

    def close(self) -> None:
        """Release the record; `ticket` is not valid afterwards."""
        self._record.close()


def _log_file(stack: contextlib.ExitStack, log_dir: Path, device: str) -> int:
    log_dir.mkdir(parents=True, exist_ok=True)
    return stack.enter_context((log_dir / f"executor-{device}.log").open("ab")).fileno()


class Liveness:
    """Judges whether a worker still answers.

    Time counts only while the supervising thread itself runs: when both were stopped (a suspended
    machine), the worker gets its chance to answer first.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._number = 0
        self._last = time.monotonic()
        self._since_ping = PING_SECONDS
        self._silence = 0.0
        self._waiting = False
        self._ticks = 0
        self.started = False

    def tick(self) -> float:
        """Count the time since the last tick, ping when it is due; returns when to tick again."""
        now = time.monotonic()
        passed = min(now - self._last, PING_SECONDS)
        self._last = now
        self._since_ping += passed
        if self._waiting:
            self._silence += passed
        if self._since_ping >= PING_SECONDS:
            self._since_ping = 0.0
            self._waiting = True
            self._number += 1
            self._process.ping(self._number)
        return PING_SECONDS - self._since_ping

    def answered(self) -> None:
        """A pong came."""
        self._silence = 0.0
        self._waiting = False
        self._ticks = 0

    def verdict(self) -> str | None:
        """Why the worker is to be ended; None while it may live."""
        if self._silence < SILENCE_SECONDS:
            return None
        state, ticks = self._process.activity()
        if state in "Tt":
            return "it is stopped"
        if not self.started:
            limit = START_SECONDS
        else:
            # One long call into C holds the interpreter: CPU time goes on being used.
            busy = state == "R" or ticks > self._ticks
            limit = BUSY_SECONDS if busy else SILENCE_SECONDS
            if self._silence < limit:
                self._ticks = ticks
        return f"it was silent for {self._silence:.1f} s" if self._silence >= limit else None


def lost_error(device: str, code: str, cause: str) -> GenieError:
    """GEN0450, GEN0451 or GEN0453 for a worker that is gone."""
    what = {
        "GEN0450": f"the executor of {device} died",
        "GEN0451": f"the executor of {device} stopped answering",
        "GEN0453": f"the executor of {device} cannot start",
    }[code]
    remedy = "it is being started again: try once more"
    if code == "GEN0453":
        remedy = "see the executor's log, and run `genie doctor`"
    return GenieError(code, what, None, cause, remedy)
