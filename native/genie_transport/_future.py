"""TransferFuture: the one way in which transfers end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from genie_transport._errors import TransferError

if TYPE_CHECKING:
    import asyncio

    from genie_transport._pump import Pump

__all__ = ["TransferFuture"]

_log = logging.getLogger("genie_transport")


class TransferFuture:
    """The outcome of one transfer: the number of bytes that the receiver verified, or an error.

    Thread-safe, and awaitable from asyncio (the loop watches the transport's descriptor; no
    thread polls). As with `asyncio.Future`, cancelling the task that awaits cancels the transfer;
    `asyncio.shield` prevents that. Every failure, cancellation included, is a `TransferError`.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_done",
        "_error",
        "_on_cancel",
        "_pump",
        "_verified",
        "_waiters",
        "attempt",
        "length",
        "op_id",
        "path",
    )

    def __init__(
        self,
        op_id: int,
        length: int,
        pump: Pump,
        on_cancel: Callable[[TransferFuture], None],
        path: str = "",
        attempt: int = 1,
    ) -> None:
        self.op_id = op_id
        self.length = length
        self.path = path
        self.attempt = attempt
        self._pump = pump
        self._on_cancel = on_cancel
        self._callbacks: list[Callable[[TransferFuture], object]] | None = None
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] | None = None
        self._done = False
        self._error: TransferError | None = None
        self._verified = 0

    def __repr__(self) -> str:
        state = "pending" if not self._done else self._error.code if self._error else "done"
        return f"<TransferFuture op {self.op_id} {state} {self.progress():.0%}>"

    def done(self) -> bool:
        """True once the transfer has succeeded, failed or been cancelled."""
        if not self._done:
            self._pump.glance()
        return self._done

    def cancelled(self) -> bool:
        """True when cancel() ended the transfer."""
        return self._error is not None and self._error.code == "GEN0612"

    def progress(self) -> float:
        """Share of the bytes that the receiver has verified: 0.0 to 1.0, never decreasing."""
        if not self._done:
            self._pump.glance()
        if self._done and self._error is None:
            return 1.0
        return self._verified / self.length if self.length else 0.0

    def result(self, timeout: float | None = None) -> int:
        """Wait for the end; return the bytes moved.

        Raises TransferError when the transfer failed or was cancelled, and the built-in
        TimeoutError when `timeout` seconds pass first (the transfer then goes on).
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self.length

    def exception(self, timeout: float | None = None) -> TransferError | None:
        """Wait for the end; return its failure or None. Raises TimeoutError as result() does."""
        if not self._done and not self._pump.wait(lambda: self._done, timeout):
            raise TimeoutError(f"transfer {self.op_id} is not done after {timeout} s")
        return self._error

    def cancel(self) -> bool:
        """Give the transfer up. False when it was done already, and then nothing changes.

        The receiver never reports a cancelled transfer as arrived.
        """
        if self.done():
            return False
        error = TransferError(
            "GEN0612", "the transfer was cancelled", self.op_id, self.path, self.attempt
        )
        if not self._finish(error, here=True):
            return False
        self._on_cancel(self)
        return True

    def add_done_callback(self, callback: Callable[[TransferFuture], object]) -> None:
        """Call `callback(self)` exactly once when done: at once, in this thread, if it is already.

        Otherwise it runs in the manager's thread (or the one that cancels), so it must be short.
        What it raises is logged and goes no further.
        """
        first = False
        with self._pump.lock:
            done = self._done
            if not done:
                first = self._callbacks is None
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
        if done:
            self._call(callback)
        elif first:
            self._pump.watch()

    def __await__(self) -> Generator[Any, None, int]:
        import asyncio  # only here: whoever awaits has it loaded

        if not self._done:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            with self._pump.lock:
                done = self._done
                if not done:
                    self._waiters = [*(self._waiters or ()), (loop, waiter)]
            if not done:
                self._pump.enter(loop)
                self._pump.glance()
                try:
                    yield from waiter
                except asyncio.CancelledError:
                    self.cancel()
                    raise
        return self.result(0)

    # -- the manager's side -----------------------------------------------------------------

    def _advance(self, verified: int) -> None:
        """Note that the receiver has verified `verified` bytes so far."""
        if not self._done and verified > self._verified:
            self._verified = verified

    def _finish(self, error: TransferError | None, *, here: bool = False) -> bool:
        """End the future once; False when it had ended before. `here`: run callbacks here."""
        with self._pump.lock:
            if self._done:
                return False
            self._error = error
            if error is None:
                self._verified = self.length
            self._done = True
        # Nobody adds any more.
        if self._callbacks is not None:
            self._pump.unwatch()
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                if here:
                    self._call(callback)
                else:
                    self._pump.later(partial(self._call, callback))
        if self._waiters is not None:
            waiters, self._waiters = self._waiters, None
            for loop, waiter in waiters:
                self._wake(loop, waiter)
        self._pump.changed()
        return True

    def _call(self, callback: Callable[[TransferFuture], object]) -> None:
        try:
            callback(self)
        except Exception:
            _log.exception("a done callback of transfer %d failed", self.op_id)

    def _wake(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
        import asyncio

        if asyncio._get_running_loop() is loop:
            _settle(waiter)
            return
        try:
            loop.call_soon_threadsafe(_settle, waiter)
        except RuntimeError:  # the loop was closed while the transfer ran: nobody waits
            _log.debug("transfer %d ended after its event loop", self.op_id)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
