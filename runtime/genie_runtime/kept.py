"""Tensors of a session that stay on the node between runs: outputs kept, inputs lent.

A run may keep an output under a name of its client's instead of sending it, and a later run of the
same session may take it as an input: nothing travels, and nothing is copied. Dropping a tensor that
a run still reads frees it when that run ends, so that its memory is nobody else's before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from genie_runtime.budget import Budget
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region
from genie_schemas.errors import GenieError

__all__ = ["KeptTensors"]

MAX_KEPT = 1 << 20
"""Tensors that one session may keep."""


@dataclass
class _Kept:
    device: str
    region: Region
    nbytes: int
    users: int = 0
    dropped: bool = False


class KeptTensors:
    """The kept tensors of one session. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._pools: Mapping[str, ArenaPool] = {}
        self._budget: Budget | None = None

    def lend(self, device: str, wanted: Mapping[str, tuple[str, int]]) -> dict[str, Region]:
        """Regions of kept tensors for a run's inputs: input → (kept name, bytes).

        Raises GEN0427 when the session keeps no tensor of that name, device and size; then nothing
        is lent. `give_back` ends the loan.
        """
        with self._lock:
            for name, (key, nbytes) in wanted.items():
                found = self._kept.get(key)
                if found is None or found.device != device or found.nbytes != nbytes:
                    raise _unknown(name, key, found)
            for key, _ in wanted.values():
                self._kept[key].users += 1
            return {name: self._kept[key].region for name, (key, _) in wanted.items()}

    def give_back(self, keys: Iterable[str]) -> None:
        """A run has ended that `lend` was called for; a tensor dropped meanwhile is freed."""
        with self._lock:
            freed = []
            for key in keys:
                found = self._kept[key]
                found.users -= 1
                if found.dropped and not found.users:
                    freed.append(self._kept.pop(key))
        self._free(freed)

    def check(self, names: Iterable[str]) -> None:
        """GEN0427 when a name is in use, or when the session would keep too many tensors."""
        with self._lock:
            wanted = list(names)
            taken = next((name for name in wanted if name in self._kept), None)
            if taken is not None or len(set(wanted)) != len(wanted):
                raise _taken(taken)
            if len(self._kept) + len(wanted) > MAX_KEPT:
                raise GenieError(
                    "GEN0427",
                    f"a session keeps at most {MAX_KEPT} tensors",
                    remedy="drop those that nobody needs, with the next run",
                )

    def keep(
        self,
        name: str,
        device: str,
        region: Region,
        nbytes: int,
        pools: Mapping[str, ArenaPool],
        budget: Budget,
    ) -> None:
        """Hold a region for later runs. The caller has taken it out of its run's."""
        budget.hold_constants(device, nbytes)
        with self._lock:
            taken = name in self._kept
            if not taken:
                self._pools, self._budget = pools, budget
                self._kept[name] = _Kept(device, region, nbytes)
        if taken:  # two runs at once were to keep the same name
            budget.drop_constants(device, nbytes)
            raise _taken(name)

    def drop(self, names: Iterable[str]) -> None:
        """Forget tensors; unknown names are ignored, because a client may ask again."""
        freed = []
        with self._lock:
            for name in names:
                found = self._kept.get(name)
                if found is None:
                    continue
                found.dropped = True
                if not found.users:
                    freed.append(self._kept.pop(name))
        self._free(freed)

    def close(self) -> None:
        """The session has ended: free everything that no run still reads."""
        with self._lock:
            names = list(self._kept)
        self.drop(names)

    def usage(self) -> tuple[int, int]:
        """(tensors, bytes) that are kept."""
        with self._lock:
            return len(self._kept), sum(k.nbytes for k in self._kept.values())

    def _free(self, items: Iterable[_Kept]) -> None:
        for item in items:
            self._pools[item.device].free(item.region)
            if self._budget is not None:
                self._budget.drop_constants(item.device, item.nbytes)


def _taken(name: str | None) -> GenieError:
    return GenieError(
        "GEN0427",
        "a kept tensor's name is in use already" if name else "two tensors are to have one name",
        cause=f"the session keeps a tensor as {name}" if name else None,
        remedy="keep it under another name, or drop the old tensor first",
    )


def _unknown(name: str, key: str, found: _Kept | None) -> GenieError:
    cause = (
        "no run of this session kept it, or it was dropped"
        if found is None
        else f"it has {found.nbytes} bytes on {found.device}"
    )
    return GenieError(
        "GEN0427",
        f"the input {name!r} is to be the kept tensor {key}, which is not there",
        cause=cause,
        remedy="tensors are kept for one session on one daemon: keep it again in this one",
    )
