"""What a manager waits for: posts, arrivals, and their deadlines. Callers hold the lock."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from dataclasses import dataclass

from genie_transport._future import TransferFuture
from genie_transport._types import Region

__all__ = ["Operation", "Outstanding"]


@dataclass(slots=True, eq=False)
class Operation:
    """An outstanding post, or an arrival that is waited for (then `region` is the destination).

    Never changed; not frozen because that makes it slow to make.
    """

    future: TransferFuture
    region: Region
    posted: bool
    deadline: float | None  # seconds, as the caller gave it


class Outstanding:
    """Operations by number, arrivals by key in the order they were asked for."""

    def __init__(self) -> None:
        self.posts = 0
        self.waits = 0
        self._operations: dict[int, Operation] = {}
        self._waiting: dict[bytes, deque[int]] = {}
        self._unclaimed: Counter[bytes] = Counter()  # arrivals that nobody has asked for yet
        self._deadlines: list[tuple[float, int]] = []

    def add(self, operation: Operation) -> None:
        """Start to wait for `operation`."""
        op_id = operation.future.op_id
        self._operations[op_id] = operation
        if operation.posted:
            self.posts += 1
        else:
            self.waits += 1
            self._waiting.setdefault(operation.region.handle.key, deque()).append(op_id)
        if operation.deadline is not None:
            # Most transfers end long before their deadline: sweep what is left of them.
            if len(self._deadlines) > 2 * len(self._operations) + 1024:
                self._deadlines = [d for d in self._deadlines if d[1] in self._operations]
                heapq.heapify(self._deadlines)
            heapq.heappush(self._deadlines, (time.monotonic() + operation.deadline, op_id))

    def get(self, op_id: int) -> Operation | None:
        """The operation, which stays outstanding; None when it has ended."""
        return self._operations.get(op_id)

    def take(self, op_id: int) -> Operation | None:
        """Remove an operation; None when it has ended already."""
        operation = self._operations.pop(op_id, None)
        if operation is None:
            return None
        if operation.posted:
            self.posts -= 1
            return operation
        self.waits -= 1
        key = operation.region.handle.key
        self._waiting[key].remove(op_id)
        if not self._waiting[key]:
            del self._waiting[key]
        return operation

    def take_all(self) -> list[Operation]:
        """Remove all operations. Unclaimed arrivals stay."""
        operations = list(self._operations.values())
        self._operations.clear()
        self._waiting.clear()
        self._deadlines.clear()
        self.posts = self.waits = 0
        return operations

    def of_region(self, region: Region) -> list[Operation]:
        """The operations that read from `region`, or wait for an arrival there."""
        return [o for o in self._operations.values() if o.region is region]

    # -- arrivals ----------------------------------------------------------------------------

    def arrived(self, key: bytes) -> Operation | None:
        """Take the first operation that waits for `key`; without one, keep it for claim()."""
        waiting = self._waiting.get(key)
        if waiting:
            return self.take(waiting[0])
        self.keep(key)
        return None

    def keep(self, key: bytes) -> None:
        """Note an arrival that nobody has taken."""
        self._unclaimed[key] += 1

    def claim(self, key: bytes) -> bool:
        """Take an arrival that came before it was asked for."""
        if not self._unclaimed[key]:
            return False
        self._unclaimed[key] -= 1
        return True

    def forget(self, key: bytes) -> None:
        """Drop the arrivals that nobody has asked for."""
        self._unclaimed.pop(key, None)

    # -- deadlines ---------------------------------------------------------------------------

    def until_deadline(self) -> float | None:
        """Seconds until the next deadline, at most an hour; None when there is none."""
        while self._deadlines and self._deadlines[0][1] not in self._operations:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return None
        return min(3600.0, max(0.0, self._deadlines[0][0] - time.monotonic()))

    def expired(self) -> list[Operation]:
        """The operations whose deadline has passed; each is returned once and stays."""
        now = time.monotonic()
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            operation = self._operations.get(heapq.heappop(self._deadlines)[1])
            if operation is not None:
                late.append(operation)
        return late
