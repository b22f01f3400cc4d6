"""One session over datagrams behind the seam: a `_core.Channel` on a fabric's poller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genie_transport._port import PortTransport
from genie_transport._types import Capabilities

__all__ = ["DatagramTransport"]


class DatagramTransport(PortTransport):
    """Implements Transport. The fabric's thread moves the bytes, or whoever waits for events."""

    def __init__(self, channel: Any, address_of: Any, capabilities: Capabilities) -> None:
        super().__init__(channel, address_of)
        self._capabilities = capabilities
        # Called once, when the last event was taken: for whoever opened a fabric for this alone.
        self.on_end: Callable[[], None] | None = None

    # -- Transport ---------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- for another path to go on -----------------------------------------------------------

    def outstanding(self) -> list[tuple[int, int]]:
        """(operation, message number) of what has no end; 0 when nothing of it was sent.

        After Lost: what was outstanding when the session ended. Ask the peer's `finished` about
        each number before posting it again elsewhere.
        """
        found: list[tuple[int, int]] = self._port.unfinished()
        return found

    def finished(self, message: int) -> bool:
        """Whether this side has received and verified all of the peer's message of that number."""
        return 0 <= message < 1 << 64 and bool(self._port.finished(message))

    def details(self) -> dict[str, int]:
        """What the protocol counted: losses, probes, rejected datagrams, round-trip times (ns)."""
        found: dict[str, int] = self._port.details()
        return found

    def _ended(self) -> None:
        super()._ended()
        if self.on_end is not None:
            self.on_end()
