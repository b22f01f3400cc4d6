"""TransferManager: registered memory, posts and arrivals of one session with one peer."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genie_schemas.closing import Closing
from genie_transport._buffers import flat_buffer
from genie_transport._completions import Completions, Problem
from genie_transport._endpoint import PATHS, unknown_path
from genie_transport._errors import TransferError, setup_error
from genie_transport._future import TransferFuture
from genie_transport._handle import DMAHandle
from genie_transport._loopback import LoopbackTransport
from genie_transport._outstanding import Operation
from genie_transport._threaded import ThreadedTransport
from genie_transport._transport import PolledTransport, Transport, standing
from genie_transport._types import Capabilities, Limits, Priority, Region, Stats, Transfer

if TYPE_CHECKING:
    import ssl

    from genie_transport._arena import Arena
    from genie_transport._fabric import Fabric

__all__ = ["TransferManager"]

_NOT_HERE: Problem = ("GEN0623", "the handle is not registered on this side")


class TransferManager(Closing):
    """One session's end of the data plane. Thread-safe; use it as a context manager or close().

    Get one from `open`, `connect` or `Listener.expect`. Failures of single transfers come
    through their futures as TransferError, never as exceptions of post() or arrival(). When the
    connection is lost, everything outstanding fails and so does all that is asked later; nothing
    is reopened behind the caller's back. Callbacks of futures run in one thread, which is started
    with the first of them.
    """

    def __init__(
        self, transport: Transport | PolledTransport, limits: Limits, *, epoch: int = 1
    ) -> None:
        """For transports of one's own; everyone else calls `open`."""
        self._transport: Transport = (
            transport if isinstance(transport, Transport) else ThreadedTransport(transport)
        )
        self._limits = limits
        self._epoch = epoch
        self._numbers = itertools.count(1)
        self._arenas = itertools.count(1)
        self._ends = Completions(self._transport)
        self._lock = self._ends.lock
        self._pump = self._ends.pump
        self._outstanding = self._ends.outstanding
        self._totals = self._ends.totals
        self._regions = self._ends.regions

    @classmethod
    def open(
        cls,
        path: str,
        *,
        endpoint: str | None = None,
        session_id: str | None = None,
        key: bytes | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
        limits: Limits | None = None,
        epoch: int = 1,
        encrypt: bool = False,
        fabrics: Sequence[Fabric] = (),
    ) -> TransferManager:
        """Open `path`.

        "loopback" needs nothing else: the manager is its own peer. "unix", "shm" (both with an
        endpoint unix://…) and "tcp" dial `endpoint` with the session's id and key, within
        `timeout` seconds; "dpdk" does so at either kind of endpoint, and then goes over one of
        `fabrics`. A named path is never replaced by another. Raises GenieError: GEN0601
        unknown path, GEN0602 malformed or missing options, and those of `connect`.
        """
        limits = limits or Limits()
        if path == "loopback":
            if endpoint or session_id or key or tls or encrypt or fabrics:
                raise setup_error("GEN0602", "the loopback path has no endpoint", at=path)
            return cls(LoopbackTransport(limits), limits, epoch=epoch)
        if path not in PATHS:
            raise unknown_path(path)
        if endpoint is None or session_id is None or key is None:
            raise setup_error("GEN0602", f"{path} needs endpoint, session_id and key", at=path)
        schemes = {"tcp": ("tcp://",), "dpdk": ("tcp://", "unix://")}.get(path, ("unix://",))
        if not endpoint.startswith(schemes):
            raise setup_error("GEN0602", f"not an endpoint of the {path} path", at=endpoint)
        from genie_transport._dial import connect

        return connect(
            endpoint,
            session_id,
            key,
            path=path,
            tls=tls,
            encrypt=encrypt,
            timeout=timeout,
            limits=limits,
            epoch=epoch,
            fabrics=fabrics,
        )

    # -- memory ------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that new handles get."""
        return self._epoch

    def register(self, buffer: object, *, device: str = "cpu") -> DMAHandle:
        """Let the peer read from or write to `buffer`, which is referenced until deregistered.

        Takes any C-contiguous object with the buffer protocol, NumPy array or CPU tensor
        (DLPack); read-only ones can only be sources. Nothing is copied. Raises TransferError
        GEN0620 (not contiguous), GEN0621 (no host memory) or the reason the connection ended.
        """
        if device not in self.capabilities().devices:
            raise TransferError(
                "GEN0621", f"the {self._ends.path} path moves host memory, not {device!r}"
            )
        flat = flat_buffer(buffer)
        handle = DMAHandle(
            arena=next(self._arenas),
            offset=0,
            length=len(flat.view),
            device=device,
            epoch=self._epoch,
            key=secrets.token_bytes(16),
        )
        region = Region(handle, flat.view, flat.writable, flat.owner)
        with self._lock:
            if self._ends.lost is not None:
                raise self._ends.lost_error(self._ends.lost)
            self._regions[handle.key] = region
        self._transport.register(region)
        return handle

    def deregister(self, handle: DMAHandle) -> None:
        """Withdraw what `handle` (or the handle it is a part of) names.

        When this returns the peer can no longer change the buffer. Transfers from it and
        arrivals in it that are outstanding fail with GEN0623. Raises TransferError GEN0623 when
        the handle is not registered here. After the connection is lost it does nothing.
        """
        with self._lock:
            region = self._regions.pop(handle.key, None)
            self._outstanding.forget(handle.key)
            if self._ends.lost is not None:
                return
        if region is None:
            raise TransferError(
                "GEN0623", "the handle is not registered here", path=self._ends.path
            )
        self._transport.deregister(region)
        self._ends.fail_where(region, "GEN0623", "the buffer was deregistered")

    def share(self, arena: Arena) -> bool:
        """Let the peer read all of `arena` in place, as long as the connection lasts.

        True where the path does so (shm): from then on, transfers from the arena are copied once.
        False where it does not, or for more than 64 arenas; transfers work all the same. Raises
        GenieError GEN0672 when the arena is closed.
        """
        native = arena._native()
        share = getattr(self._transport, "share", None)
        return share is not None and bool(share(native))

    def advance_epoch(self) -> int:
        """Begin a new epoch and return it: all handles made before are refused from now on.

        Arrivals that are waited for on older handles fail with GEN0624.
        """
        with self._lock:
            self._epoch += 1
            epoch = self._epoch
            old = [r for r in self._regions.values() if r.handle.epoch < epoch]
        self._transport.fence(epoch)
        for region in old:
            self._ends.fail_where(region, "GEN0624", f"epoch {epoch} has begun", posts=False)
        return epoch

    # -- transfers ---------------------------------------------------------------------------

    def post(
        self,
        src: DMAHandle,
        dst: DMAHandle,
        *,
        priority: Priority = Priority.PREFILL,
        deadline: float | None = None,
        attempt: int = 1,
        wait: float = 0.0,
    ) -> TransferFuture:
        """Move the bytes of `src`, registered here, to `dst`, a handle of the peer's.

        `deadline` is seconds from now within which the receiver must have verified all bytes
        (GEN0613 otherwise). `wait` is how many seconds to wait for room when the queue is full
        (GEN0614 when there is none then). `attempt` only goes into errors. The source must not
        change until the future is done.
        """
        future = TransferFuture(
            next(self._numbers),
            dst.length,
            self._pump,
            self._ends.cancelled,
            self._ends.path,
            attempt,
        )
        if self._outstanding.posts >= self._limits.queue:
            self._pump.wait(
                lambda: self._ends.lost or self._outstanding.posts < self._limits.queue, wait
            )
        with self._lock:
            region = self._regions.get(src.key)
            problem = self._check_post(region, src, dst)
            if problem is None and deadline is not None and not deadline > 0:
                problem = ("GEN0613", "its deadline had passed before it was posted")
            if problem is None and self._outstanding.posts >= self._limits.queue:
                count = self._outstanding.posts
                problem = ("GEN0614", f"{count} transfers are outstanding already")
            if problem is None and region is not None:
                self._outstanding.add(Operation(future, region, True, deadline))
                self._totals["transfers"] += 1
                start = src.offset - region.handle.offset
                # Under the lock, so that no cancellation can reach the transport before it.
                self._transport.post(Transfer(future.op_id, region, start, dst, priority))
        if problem is not None:
            future._finish(self._ends.error(future, *problem))
        elif deadline is not None:
            self._transport.alarm(deadline)
        return future

    def arrival(self, handle: DMAHandle, *, deadline: float | None = None) -> TransferFuture:
        """The next transfer that covers all of `handle`, a handle of this side's.

        Done when its bytes are received and verified. Arrivals are handed out once each, in
        order; one that came before it was asked for counts. Until then bytes of a chunk that
        has not been verified may already stand in the buffer: never read it before.
        """
        future = TransferFuture(
            next(self._numbers), handle.length, self._pump, self._ends.cancelled, self._ends.path
        )
        self._pump.glance()
        with self._lock:
            region = self._regions.get(handle.key)
            problem = self._check_arrival(region, handle)
            there = problem is None and self._outstanding.claim(handle.key)
            if problem is None and not there:
                problem = self._check_wait(deadline)
            if problem is None and not there and region is not None:
                self._outstanding.add(Operation(future, region, False, deadline))
        if there or problem is not None:
            future._finish(None if problem is None else self._ends.error(future, *problem))
        elif deadline is not None:
            self._transport.alarm(deadline)
        return future

    # -- standing transfers ------------------------------------------------------------------

    def stand(
        self, src: DMAHandle, dst: DMAHandle, trigger: int, *, priority: Priority = Priority.PREFILL
    ) -> TransferFuture | None:
        """Move `src` to `dst` each time that the eventfd `trigger` is written to.

        So a process that shares the memory of `src` sends without a word to this one. One at a
        time: what is triggered meanwhile follows. The future ends with the first failure, when it
        is cancelled, or after conclude(). None where the path cannot do so: post() each time
        instead. `trigger` must be non-blocking; it is duplicated.
        """
        transport = standing(self._transport)
        if transport is None:
            return None
        future = TransferFuture(
            next(self._numbers), dst.length, self._pump, self._ends.cancelled, self._ends.path
        )
        with self._lock:
            region = self._regions.get(src.key)
            problem = self._check_post(region, src, dst)
            if problem is None and region is not None:
                start = src.offset - region.handle.offset
                if not transport.stand(
                    Transfer(future.op_id, region, start, dst, priority), trigger
                ):
                    return None
                self._outstanding.add(Operation(future, region, True, None))
        if problem is not None:
            future._finish(self._ends.error(future, *problem))
        return future

    def conclude(self, future: TransferFuture) -> None:
        """Nobody writes to the trigger any more: the future ends when all so far is verified."""
        transport = standing(self._transport)
        if transport is not None:
            transport.conclude(future.op_id)

    def carried(self, future: TransferFuture) -> tuple[int, int]:
        """How often a standing transfer was verified, and the ns that took in all.

        Of one that has completed this is told once; (0, 0) of one that was cancelled or failed.
        """
        transport = standing(self._transport)
        return (0, 0) if transport is None else transport.carried(future.op_id)

    def hang(self, handle: DMAHandle, bell: int) -> bool:
        """Have arrivals in `handle` write to the eventfd `bell` instead of ending an arrival().

        What arrived before, and the end of the connection, still end arrivals. False where the path
        cannot do so. `bell` must be non-blocking; it is duplicated.
        """
        transport = standing(self._transport)
        with self._lock:
            region = self._regions.get(handle.key)
        return transport is not None and region is not None and transport.hang(region, bell)

    def rings(self, handle: DMAHandle) -> int:
        """How often the bell of `handle` was rung; 0 once it is deregistered."""
        transport = standing(self._transport)
        with self._lock:
            region = self._regions.get(handle.key)
        return 0 if transport is None or region is None else transport.rings(region)

    # -- state -------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """What this path can do."""
        return self._transport.capabilities()

    def stats(self) -> Stats:
        """Totals since the manager was opened."""
        self._pump.glance()
        counters = self._transport.counters()
        with self._lock:
            return Stats(
                bytes_sent=counters.bytes_sent,
                bytes_received=counters.bytes_received,
                sends=counters.sends,
                in_flight=counters.in_flight,
                peak_in_flight=counters.peak_in_flight,
                transfers=self._totals["transfers"],
                completed=self._totals["completed"],
                failed=self._totals["failed"],
                cancelled=self._totals["cancelled"],
                outstanding=self._outstanding.posts,
                arrivals=self._totals["arrivals"],
                switches=counters.switches,
            )

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait for the peer of an expected session. False when it did not come, or has gone."""
        self._pump.wait(lambda: self._ends.connected or self._ends.lost, timeout)
        return self._ends.connected and self._ends.lost is None

    @property
    def failure(self) -> TransferError | None:
        """Why the connection ended, or None while it has not."""
        self._pump.glance()
        lost = self._ends.lost
        return None if lost is None else self._ends.lost_error(lost)

    def close(self) -> None:
        """End the connection; everything outstanding fails with GEN0611. Idempotent.

        Returns when the manager's threads and descriptors are gone; in a callback, its own thread
        goes when the callback returns.
        """
        if self._ends.lost is None:
            self._transport.close()
            self._pump.wait(lambda: self._ends.lost)
        self._pump.join()

    # -- what may be asked for ---------------------------------------------------------------

    def _check_post(self, region: Region | None, src: DMAHandle, dst: DMAHandle) -> Problem | None:
        if self._ends.lost is not None:
            return self._ends.lost.code, self._ends.lost.message
        if region is None or src.arena != region.handle.arena:
            return _NOT_HERE
        start = src.offset - region.handle.offset
        if start < 0 or start + src.length > region.handle.length:
            return "GEN0625", f"the source has {region.handle.length} bytes"
        if src.length != dst.length:
            return "GEN0628", f"the source has {src.length} bytes, the destination {dst.length}"
        return None

    def _check_arrival(self, region: Region | None, handle: DMAHandle) -> Problem | None:
        """Whether an arrival may be asked for at all; what has arrived outlives the connection."""
        if region is None and self._ends.lost is None:
            return _NOT_HERE
        if region is not None and region.handle != handle:
            return "GEN0625", "an arrival is waited for on a whole registered buffer"
        if handle.epoch < self._epoch:
            return "GEN0624", f"epoch {self._epoch} has begun"
        return None

    def _check_wait(self, deadline: float | None) -> Problem | None:
        """Whether an arrival that is not there yet may be waited for."""
        if self._ends.lost is not None:
            return self._ends.lost.code, self._ends.lost.message
        if deadline is not None and not deadline > 0:
            return "GEN0613", "its deadline had passed before it was asked for"
        if self._outstanding.waits >= self._limits.queue:
            return "GEN0614", f"{self._outstanding.waits} arrivals are waited for already"
        return None
