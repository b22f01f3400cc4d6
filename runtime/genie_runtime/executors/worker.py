"""The executor process: `python -m genie_runtime.executors.worker BOOT`, started by a supervisor.

Its main thread imports torch and then carries out commands in order; runs have threads of their
own. One thread, which starts first and never touches torch, answers the liveness checks. The
process ends when its sockets do, or when its parent does.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from genie_runtime.arena import Arena
from genie_runtime.executors import messages
from genie_runtime.ports import Ready, Region, RunEvent, RunRequest, Sampled
from genie_schemas import canonical
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    from genie_runtime.executors.device import DeviceExecutor

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_TICKET = struct.Struct("<Q")
_WORKSPACE = 1 << 30
"""Bytes that kernels may take for themselves, beyond the device's memory: buffers, stacks."""


class _Channel:
    """The control socket: commands in, reports out (from any thread)."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._lock = threading.Lock()

    def send(self, report: messages.Report) -> None:
        frame = messages.encode(report)
        with self._lock:
            self._socket.sendall(frame)

    def receive(self) -> tuple[messages.Command, bytes] | None:
        """The next command and its bytes; None at the end."""
        header = self._exactly(messages.HEADER.size)
        if header is None:
            return None
        sizes = messages.check_sizes(header, messages.COMMAND_LIMIT, messages.BLOB_LIMIT)
        text, blob = (self._exactly(size) if size else b"" for size in sizes)
        if text is None or blob is None:
            return None
        return messages.parse_command(text, blob), blob

    def receive_fds(self, count: int) -> list[int]:
        """Descriptors that follow a command, with one byte."""
        _, fds, _, _ = socket.recv_fds(self._socket, 1, count, socket.MSG_CMSG_CLOEXEC)
        if len(fds) != count:
            raise GenieError("GEN0454", f"{len(fds)} of {count} descriptors came with a command")
        return fds

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray(size)
        view, have = memoryview(data), 0
        while have < size:
            got = self._socket.recv_into(view[have:])
            if got == 0:
                return None
            have += got
        return bytes(data)


class _Recorder:
    """Shared memory that holds the ticket of the run that computes, for when we crash."""

    def __init__(self, fd: int) -> None:
        self._area = mmap.mmap(fd, _TICKET.size)
        os.close(fd)
        self.tickets: dict[int, int] = {}

    def computing(self, request: RunRequest | None) -> None:
        ticket = 0 if request is None else self.tickets.get(id(request), 0)
        _TICKET.pack_into(self._area, 0, ticket)


class _Worker:
    def __init__(self, channel: _Channel, recorder: _Recorder, executor: DeviceExecutor) -> None:
        self._channel = channel
        self._recorder = recorder
        self._executor = executor
        self._arenas: dict[int, Arena] = {}

    def serve(self) -> None:
        """Carry out commands until the supervisor hangs up."""
        while (received := self._channel.receive()) is not None:
            self._carry_out(*received)

    def _carry_out(self, command: messages.Command, blob: bytes) -> None:
        match command:
            case messages.MapArena():
                arena = self._arenas[command.arena] = self._map(command)
                self._executor.map_arena(arena)
            case messages.UnmapArena():
                self._executor.unmap_arena(command.arena)
                if (gone := self._arenas.pop(command.arena, None)) is not None:
                    gone.close()
            case messages.Install():
                self._answer(command, blob)
            case messages.Load():
                self._answer(command, blob)
            case messages.Uninstall():
                self._executor.uninstall(command.digest)
            case messages.Run():
                self._run(command)
            case messages.Deliver():
                self._executor.deliver(command.run_key, command.step)
            case messages.Cancel():
                self._executor.cancel(command.run_key)
            case messages.FreeState():
                self._executor.free_state(command.key)

    def _map(self, command: messages.MapArena) -> Arena:
        if command.parts:
            parts = [(arena, offset, length) for arena, offset, length in command.parts]
            return Arena.assemble(parts, self._arenas, command.arena)
        return Arena.attach(self._channel.receive_fds(1)[0], command.size, command.arena)

    def _answer(self, command: messages.Install | messages.Load, blob: bytes) -> None:
        problem = None
        try:
            if isinstance(command, messages.Install):
                text = blob.decode("utf-8", "replace")
                self._executor.install(text, command.digest, command.device)
            else:
                constants = {name: Region(*place) for name, place in command.constants.items()}
                self._executor.load(command.digest, constants)
        except GenieError as error:
            problem = messages.ErrorData.of(error)
        self._channel.send(messages.Reply(id=command.id, error=problem))

    def _run(self, command: messages.Run) -> None:
        wired = len(command.bells) + len(command.triggers)
        eventfds = self._channel.receive_fds(wired) if wired else []
        request = command.request(eventfds)
        self._recorder.tickets[id(request)] = command.ticket

        def report(event: RunEvent) -> None:
            if isinstance(event, Ready | Sampled):
                self._channel.send(messages.Told(command.ticket, event))
                return
            self._recorder.tickets.pop(id(request), None)
            self._channel.send(messages.Event.of(command.ticket, event))
            if self._executor.lost:
                _end(70)  # nothing computes on this device again in this process

        self._executor.run(request, report)
        for eventfd in eventfds:
            os.close(eventfd)  # the run has its own


def _answer_pings(fd: int, overdue: list[DeviceExecutor]) -> None:
    """Answer liveness checks until the supervisor hangs up; then end, whatever else goes on."""
    # An error of the socket is one way of hanging up.
    with socket.socket(fileno=fd) as life, contextlib.suppress(OSError):
        while len(ping := life.recv(messages.PING.size)) == messages.PING.size:
            seconds = overdue[0].overdue_seconds() if overdue else 0.0
            life.send(messages.PONG.pack(*messages.PING.unpack(ping), int(seconds * 1000)))
    _end(0)


def _end(status: int) -> NoReturn:
    """End at once: threads may sit in kernels that nobody waits for any more."""
    sys.stderr.flush()
    os._exit(status)


def _harden(parent: int) -> None:
    """Die with the parent, and let no process of the same user read this one's memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, int(signal.SIGKILL)), (_PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
    if os.getppid() != parent:  # it died before we asked to be told
        _end(0)


def _bound_memory(limit: int) -> None:
    """Let no more than `limit` bytes be allocated beyond what torch took by coming up.

    An operator whose result is far larger than the plan declares then fails like one on a full
    device, instead of bringing the machine to the point where the kernel kills something.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    taken = next(int(line.split()[1]) for line in status.splitlines() if line[:7] == "VmData:")
    # Arenas are shared memory, which this limit does not count.
    bound = min(taken * 1024 + limit + _WORKSPACE, 1 << 62)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or bound < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def main(argument: str) -> NoReturn:
    """Run a worker until its supervisor hangs up. `argument` is a `messages.Boot` as JSON."""
    boot = messages.Boot.model_validate(canonical.loads(argument))
    faulthandler.enable()
    # The terminal's Ctrl-C and the service manager's SIGTERM reach the whole group: the
    # supervisor decides when this process ends, by hanging up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _harden(boot.parent)
    overdue: list[DeviceExecutor] = []
    threading.Thread(target=_answer_pings, args=(boot.life, overdue), daemon=True).start()
    channel = _Channel(boot.control)
    recorder = _Recorder(boot.recorder)
    try:
        from genie_runtime.executors.device import DeviceExecutor

        executor = DeviceExecutor(boot.spec(), boot.threads, recorder.computing)
    except GenieError as error:
        channel.send(messages.Hello(error=messages.ErrorData.of(error)))
        _end(1)
    overdue.append(executor)
    facts = executor.facts()
    if boot.spec().kind == "cpu":
        _bound_memory(boot.memory_bytes)
    try:
        channel.send(
            messages.Hello(
                torch=facts.torch,
                threads=facts.threads,
                device_name=facts.device_name,
                memory_bytes=facts.memory_bytes,
                capability=facts.capability,
            )
        )
        _Worker(channel, recorder, executor).serve()
    except OSError:
        _end(0)  # the supervisor went away while we were telling it something
    except GenieError as error:
        sys.stderr.write(f"{error}\n")
        _end(70)
    _end(0)


if __name__ == "__main__":
    main(sys.argv[1])
