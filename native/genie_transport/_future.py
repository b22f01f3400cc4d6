"""TransferFuture: the one way in which transfers end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from typing import Any

from genie_transport._errors import TransferError

__all__ = ["TransferFuture"]

_log = logging.getLogger("genie_transport")


class TransferFuture:
    """The outcome of one transfer: the number of bytes that the receiver verified, or an error.

    Thread-safe, and awaitable from asyncio (the result arrives by `call_soon_threadsafe`; no
    thread polls). As with `asyncio.Future`, cancelling the task that awaits cancels the transfer;
    `asyncio.shield` prevents that. Every failure, cancellation included, is a `TransferError`.
    """

    def __init__(
        self,
        op_id: int,
        length: int,
        *,
        path: str = "",
        attempt: int = 1,
        on_cancel: Callable[[TransferFuture], None] | None = None,
    ) -> None:
        self.op_id = op_id
        self.length = length
        self.path = path
        self.attempt = attempt
        self._on_cancel = on_cancel
        self._condition = threading.Condition()
        self._callbacks: list[Callable[[TransferFuture], object]] = []
        self._done = False
        self._error: TransferError | None = None
        self._verified = 0

    def __repr__(self) -> str:
        state = "pending" if not self._done else self._error.code if self._error else "done"
        return f"<TransferFuture op {self.op_id} {state} {self.progress():.0%}>"

    def done(self) -> bool:
        """True once the transfer has succeeded, failed or been cancelled."""
        return self._done

    def cancelled(self) -> bool:
        """True when cancel() ended the transfer."""
        return self._error is not None and self._error.code == "GEN0612"

    def progress(self) -> float:
        """Share of the bytes that the receiver has verified: 0.0 to 1.0, never decreasing."""
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
        with self._condition:
            if not self._condition.wait_for(lambda: self._done, timeout):
                raise TimeoutError(f"transfer {self.op_id} is not done after {timeout} s")
            return self._error

    def cancel(self) -> bool:
        """Give the transfer up. False when it was done already, and then nothing changes.

        The source may still be read for the rest of one frame; the receiver never reports a
        cancelled transfer as arrived.
        """
        error = TransferError(
            "GEN0612", "the transfer was cancelled", self.op_id, self.path, self.attempt
        )
        if not self._finish(error):
            return False
        if self._on_cancel is not None:
            self._on_cancel(self)
        return True

    def add_done_callback(self, callback: Callable[[TransferFuture], object]) -> None:
        """Call `callback(self)` exactly once when done: at once, in this thread, if it is already.

        Otherwise it runs in the manager's thread (or the one that cancels), so it must be short.
        What it raises is logged and goes no further.
        """
        with self._condition:
            if not self._done:
                self._callbacks.append(callback)
                return
        self._call(callback)

    def __await__(self) -> Generator[Any, None, int]:
        import asyncio  # only here: whoever awaits has it loaded

        if not self._done:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()

            def wake(_: TransferFuture) -> None:
                try:
                    loop.call_soon_threadsafe(_settle, waiter)
                except RuntimeError:  # the loop was closed while the transfer ran: nobody waits
                    _log.debug("transfer %d ended after its event loop", self.op_id)

            self.add_done_callback(wake)
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

    def _finish(self, error: TransferError | None) -> bool:
        """End the future once; False when it had ended before."""
        with self._condition:
            if self._done:
                return False
            self._error = error
            if error is None:
                self._verified = self.length
            self._done = True
            callbacks, self._callbacks = self._callbacks, []
            self._condition.notify_all()
        for callback in callbacks:
            self._call(callback)
        return True

    def _call(self, callback: Callable[[TransferFuture], object]) -> None:
        try:
            callback(self)
        except Exception:
            _log.exception("a done callback of transfer %d failed", self.op_id)


def _settle(waiter: Any) -> None:
    if not waiter.done():
        waiter.set_result(None)
