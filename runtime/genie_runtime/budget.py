"""Memory of a node's devices: what runs reserved, and what constants and states hold.

A run reserves its plan's peak on all its devices at once or not at all. Constants are counted
once however many plans and runs share them, so a run reserves its peak without them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from genie_runtime.ports import DeviceSpec
from genie_schemas.errors import GenieError, InternalError

Evict = Callable[[str], bool]
"""Drop something that nobody uses from a device; False when there is nothing left to drop."""


@dataclass
class _Account:
    capacity: int
    reserved: int = 0
    constants: int = 0
    states: int = 0
    peak: int = 0

    @property
    def held(self) -> int:
        return self.reserved + self.constants + self.states


@dataclass
class Reservation:
    """Bytes held by device until `Budget.release`."""

    needs: dict[str, int]
    held: bool = field(default=True)


class Budget:
    """The accounts of all devices. Thread-safe; waiting runs are served in the order they came."""

    def __init__(self, devices: Mapping[str, DeviceSpec], evict: Evict | None = None) -> None:
        self._accounts = {name: _Account(spec.memory_bytes) for name, spec in devices.items()}
        self._evict = evict or (lambda device: False)
        self._change = threading.Condition()
        self._queue: list[object] = []

    def reserve(
        self,
        needs: Mapping[str, int],
        deadline: float,
        stop: Callable[[], GenieError | None] = lambda: None,
    ) -> Reservation:
        """Reserve `needs` (device → bytes) together, waiting until `deadline` (monotonic, s).

        `stop` is asked at least twice a second and ends the wait with the error that it returns.
        Raises GEN0412 when it can never fit, GEN0413 when the deadline passed first.
        """
        for device, wanted in needs.items():
            self.check_fits(device, wanted)
        ticket = object()
        with self._change:
            self._queue.append(ticket)
            try:
                while not (self._queue[0] is ticket and self._try(needs)):
                    error = stop()
                    if error is not None:
                        raise error
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise self._busy(needs)
                    self._change.wait(min(left, 0.5))
            finally:
                self._queue.remove(ticket)
                self._change.notify_all()
        return Reservation(dict(needs))

    def try_reserve(self, needs: Mapping[str, int]) -> Reservation | None:
        """Reserve `needs` if there is room and nobody waits for it; never waits itself."""
        with self._change:
            if self._queue or not self._try(needs):
                return None
        return Reservation(dict(needs))

    def _try(self, needs: Mapping[str, int]) -> bool:
        if not all(self._make_room(device, wanted) for device, wanted in sorted(needs.items())):
            return False
        for device, wanted in needs.items():
            account = self._accounts[device]
            account.reserved += wanted
            account.peak = max(account.peak, account.held)
        return True

    def _make_room(self, device: str, wanted: int) -> bool:
        account = self._accounts[device]
        while account.held + wanted > account.capacity:
            if not self._evict(device):
                return False
        return True

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back; a second time does nothing."""
        with self._change:
            if not reservation.held:
                return
            reservation.held = False
            for device, wanted in reservation.needs.items():
                self._accounts[device].reserved -= wanted
            self._change.notify_all()

    def hold_constants(self, device: str, nbytes: int, timeout: float = 0.0) -> None:
        """Count `nbytes` of constants on a device, waiting in turn with the runs that wait.

        Raises GEN0413 when runs held the memory for `timeout` seconds.
        """
        held = self.reserve({device: nbytes}, time.monotonic() + timeout)
        with self._change:
            held.held = False
            account = self._accounts[device]
            account.reserved -= nbytes
            account.constants += nbytes

    def drop_constants(self, device: str, nbytes: int) -> None:
        """Constants of `nbytes` left a device."""
        with self._change:
            self._accounts[device].constants -= nbytes
            self._change.notify_all()

    def keep_state(self, reservation: Reservation, part: Mapping[str, int]) -> Reservation:
        """Keep `part` of a run's reservation for state that stays when the run has ended."""
        with self._change:
            for device, nbytes in part.items():
                if nbytes > reservation.needs.get(device, 0):
                    raise InternalError(f"state of {nbytes} bytes that no run reserved")
            for device, nbytes in part.items():
                reservation.needs[device] -= nbytes
                self._accounts[device].reserved -= nbytes
                self._accounts[device].states += nbytes
        return Reservation(dict(part))

    def drop_state(self, kept: Reservation) -> None:
        """State was freed; a second time does nothing."""
        with self._change:
            if not kept.held:
                return
            kept.held = False
            for device, nbytes in kept.needs.items():
                self._accounts[device].states -= nbytes
            self._change.notify_all()

    def state_bytes(self, device: str) -> int:
        """Bytes of the states of sequences on a device."""
        with self._change:
            return self._accounts[device].states

    def check_fits(self, device: str, wanted: int) -> None:
        """GEN0412 when `wanted` bytes exceed the whole device."""
        capacity = self._accounts[device].capacity
        if wanted > capacity:
            raise GenieError(
                "GEN0412",
                f"the plan needs {_size(wanted)} on device {device}, which has {_size(capacity)}",
                remedy="lower the maxima under `dims` in the spec, spread the model over more "
                "devices, or offer more memory with genied --device",
                context={"device": device, "needs": wanted, "memory_bytes": capacity},
            )

    def usage(self, device: str) -> tuple[int, int, int]:
        """(bytes reserved by runs, bytes of constants, peak of all that is held)."""
        with self._change:
            account = self._accounts[device]
            return account.reserved, account.constants, account.peak

    def wake(self) -> None:
        """Let waiting reservations ask `stop` now."""
        with self._change:
            self._change.notify_all()

    def _busy(self, needs: Mapping[str, int]) -> GenieError:
        parts = ", ".join(f"{_size(n)} on {d}" for d, n in sorted(needs.items()))
        return GenieError(
            "GEN0413",
            f"no room for {parts} in time",
            cause="other runs and plans hold the memory",
            remedy="try again later, or with a longer deadline",
            context={"needs": dict(needs)},
        )


def _size(nbytes: int) -> str:
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{nbytes} B" if unit == "B" else f"{value:.1f} {unit}"
