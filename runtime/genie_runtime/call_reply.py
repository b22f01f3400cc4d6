"""The end of a call channel that replies leave from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from genie_runtime.telemetry import Telemetry

if TYPE_CHECKING:
    from genie_transport import DMAHandle, TransferFuture, TransferManager

__all__ = ["LAST_WORDS", "ReplySlot"]

LAST_WORDS = 10.0
"""Seconds that a client has to take the last reply of a channel."""


class ReplySlot:
    """Memory for the head of one reply at a time, registered as long as its channel is open."""

    def __init__(
        self, client: TransferManager, nbytes: int, to: DMAHandle, telemetry: Telemetry
    ) -> None:
        """Replies of `nbytes` go to the client's handle `to`."""
        self.view = memoryview(bytearray(nbytes))
        self.sending = False
        """Whether a reply is on its way; whoever takes the word of its end resets it."""
        self._client = client
        self._handle = client.register(self.view)
        self._to = to
        self._telemetry = telemetry

    def send(self, seconds: float, sent: Callable[[Exception | None], None]) -> None:
        """Send what `view` holds; `sent`, called by any thread, gets why that failed, or None."""
        from genie_transport import Priority

        def done(future: TransferFuture) -> None:
            error = future.exception(0)
            if error is None:
                self._telemetry.add("bytes_out", future.length)
            sent(error)

        self.sending = True
        future = self._client.post(
            self._handle, self._to, priority=Priority.DECODE, deadline=seconds
        )
        future.add_done_callback(done)

    def withdraw(self) -> None:
        """Take the handle back."""
        from genie_transport import TransferError

        with contextlib.suppress(TransferError):  # withdrawn with its connection
            self._client.deregister(self._handle)
