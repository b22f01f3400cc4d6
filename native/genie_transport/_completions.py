"""What becomes of a manager's transfers: a transport's events end the futures they are about."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from genie_transport._errors import TransferError
from genie_transport._future import TransferFuture
from genie_transport._outstanding import Operation, Outstanding
from genie_transport._pump import Pump
from genie_transport._transport import Transport
from genie_transport._types import (
    Arrived,
    Completed,
    Connected,
    Event,
    Expired,
    Failed,
    Lost,
    Progressed,
    Region,
)

__all__ = ["Completions", "Problem"]

Problem = tuple[str, str]  # code and message


class Completions:
    """One for each manager, which adds to `regions` and `outstanding` under `lock`."""

    def __init__(self, transport: Transport) -> None:
        self.lock = threading.Lock()
        self.regions: dict[bytes, Region] = {}
        self.outstanding = Outstanding()
        self.totals = Counter[str]()
        self.path = transport.capabilities().path
        self.connected = False
        self.lost: Lost | None = None
        """Why the connection ended; None while it has not."""
        self._transport = transport
        self.pump = Pump(transport, self._handle, f"genie-transfer-{self.path}")

    # -- events; one thread at a time --------------------------------------------------------

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            self._dispatch(event)

    def _dispatch(self, event: Event) -> None:
        match event:
            case Progressed(op_id, verified):
                operation = self.outstanding.get(op_id)
                if operation is not None:
                    operation.future._advance(verified)
            case Completed(op_id):
                self._settle(op_id, None)
            case Failed(op_id, code, message):
                self._settle(op_id, (code, message))
            case Arrived(key, times):
                for _ in range(times):
                    self._arrived(key)
            case Connected():
                self.path = self._transport.capabilities().path
                self.connected = True
            case Expired():
                self._expire()
            case Lost():
                self._end(event)

    def _arrived(self, key: bytes) -> None:
        with self.lock:
            if key not in self.regions:
                return  # withdrawn between the last byte and this event
            self.totals["arrivals"] += 1
            operation = self.outstanding.arrived(key)
        # A cancellation that comes in between has lost nothing: the next arrival() finds it.
        if operation is not None and not operation.future._finish(None):
            with self.lock:
                self.outstanding.keep(key)

    def _end(self, lost: Lost) -> None:
        with self.lock:
            self.lost = lost
            operations = self.outstanding.take_all()
            self.totals["failed"] += sum(o.posted for o in operations)
            # Lets go of the buffers; arrivals that are complete can still be claimed by key.
            self.regions.clear()
        for operation in operations:
            operation.future._finish(self.error(operation.future, lost.code, lost.message))
        self.pump.end()

    def _expire(self) -> None:
        with self.lock:
            late = self.outstanding.expired()
        for operation in late:
            future = operation.future
            share = f"{future.progress():.0%} of {future.length} bytes"
            text = f"not done within {operation.deadline:g} s: {share}"
            if operation.posted:
                self._transport.cancel(future.op_id)
            self._settle(future.op_id, ("GEN0613", text))
        with self.lock:
            left = self.outstanding.until_deadline()
        if left is not None:
            self._transport.alarm(left)

    # -- orders ------------------------------------------------------------------------------

    def cancelled(self, future: TransferFuture) -> None:
        """Whoever asked for `future` gave it up."""
        operation = self._take(future.op_id, "cancelled")
        if operation is not None and operation.posted:
            self._transport.cancel(future.op_id)

    def fail_where(self, region: Region, code: str, message: str, *, posts: bool = True) -> None:
        """Fail what reads from `region` (with `posts`), or waits for an arrival there."""
        with self.lock:
            ended = self.outstanding.of_region(region)
        for operation in ended:
            if operation.posted and not posts:
                continue
            if operation.posted:
                self._transport.cancel(operation.future.op_id)
            self._settle(operation.future.op_id, (code, message))

    def _settle(self, op_id: int, problem: Problem | None) -> None:
        operation = self._take(op_id, "completed" if problem is None else "failed")
        if operation is not None:
            error = None if problem is None else self.error(operation.future, *problem)
            operation.future._finish(error)

    def _take(self, op_id: int, outcome: str) -> Operation | None:
        """Remove an operation that ends with `outcome`, and count it if it was a post."""
        with self.lock:
            operation = self.outstanding.take(op_id)
            if operation is not None and operation.posted:
                self.totals[outcome] += 1
        return operation

    # -- errors ------------------------------------------------------------------------------

    def error(self, future: TransferFuture, code: str, message: str) -> TransferError:
        """Why `future` failed, with how far it came."""
        context = {"bytes": future.length, "progress": round(future.progress(), 6)}
        return TransferError(code, message, future.op_id, self.path, future.attempt, context)

    def lost_error(self, lost: Lost) -> TransferError:
        """The end of the connection, for what is asked later."""
        return TransferError(lost.code, lost.message, path=self.path, context=dict(lost.context))
