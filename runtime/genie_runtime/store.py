"""Constants on a node's devices: by digest, verified chunk by chunk, shared by all plans.

Lock order: the budget may call `unpin` and `drop_unpinned` (to make room) while it holds its
lock, so nothing here asks the budget for anything while holding the store's.

A constant arrives in an *upload*, which belongs to one session, so that nobody else can write
into it. When its session ends before it is complete, the upload stays for a while and the next
session that brings the same constant goes on with it: what was verified is not sent again.
Complete constants stay as long as a loaded plan pins them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import blake3

from genie_runtime.budget import Budget
from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region
from genie_schemas.constants import CHUNK, combine
from genie_schemas.errors import GenieError

OWNER = "constants"


@dataclass
class _Resident:
    region: Region
    nbytes: int
    pins: int = 0
    claims: set[str] = field(default_factory=set)
    """Sessions that brought it or rely on it, for a plan that is not loaded yet."""


@dataclass
class Upload:
    """A constant on its way to `device`: which of its chunks are verified."""

    digest: str
    nbytes: int
    device: str
    region: Region
    chunks: Sequence[bytes]
    session: str | None
    verified: set[int] = field(default_factory=set)
    touched: float = field(default_factory=time.monotonic)

    def span(self, index: int) -> tuple[int, int]:
        """(start, end) of a chunk in bytes."""
        return index * CHUNK, min((index + 1) * CHUNK, self.nbytes)

    def missing(self) -> list[int]:
        """The chunks still to come."""
        return [i for i in range(len(self.chunks)) if i not in self.verified]


class ConstantStore:
    """All constants of one node. Thread-safe."""

    def __init__(
        self, pools: Mapping[str, ArenaPool], budget: Budget, keep: float, patience: float = 0.0
    ) -> None:
        """Keep broken-off uploads for `keep` seconds, and wait `patience` seconds for memory."""
        self._pools = pools
        self._budget = budget
        self._keep = keep
        self._patience = patience
        self._lock = threading.RLock()
        self._resident: dict[tuple[str, str], _Resident] = {}
        self._uploads: dict[tuple[str, str | None], Upload] = {}

    def have(self, device: str, digest: str) -> bool:
        """Whether the constant lies on the device, complete."""
        with self._lock:
            return (device, digest) in self._resident

    def missing(
        self, session: str, device: str, wanted: Mapping[str, int]
    ) -> list[tuple[str, int]]:
        """Which of `wanted` (digest → bytes) the device lacks; the session claims the others.

        What another device of the node has is copied over instead of being asked for.
        """
        lacking = []
        for digest, nbytes in wanted.items():
            if not self._claim(session, device, digest) and not self._copy_over(
                session, device, digest, nbytes
            ):
                lacking.append((digest, nbytes))
        return lacking

    def _claim(self, session: str, device: str, digest: str) -> bool:
        with self._lock:
            resident = self._resident.get((device, digest))
            if resident is None:
                return False
            resident.claims.add(session)
            return True

    def orphan(self, digest: str) -> list[int] | None:
        """The missing chunks of an upload that was broken off, None when there is none."""
        with self._lock:
            upload = self._uploads.get((digest, None))
            return upload.missing() if upload else None

    def begin(
        self, session: str, device: str, digest: str, nbytes: int, chunks: Sequence[bytes]
    ) -> Upload:
        """Start, or go on with, the upload of a constant to `device`.

        Raises GEN0425 when the chunk digests do not combine to `digest`, GEN0413 or GEN0412 when
        the device has no room.
        """
        if len(chunks) != max(1, -(-nbytes // CHUNK)) or combine(list(chunks), nbytes) != digest:
            raise GenieError(
                "GEN0425",
                "the chunk digests of a constant do not combine to its digest",
                context={"digest": digest},
            )
        with self._lock:
            mine = self._uploads.get((digest, session))
            if mine is not None:
                return mine
            orphan = self._uploads.get((digest, None))
            if orphan is not None and orphan.device == device:
                del self._uploads[digest, None]
                orphan.session, orphan.touched = session, time.monotonic()
                self._uploads[digest, session] = orphan
                return orphan
        region = self._allocate(device, nbytes)
        upload = Upload(digest, nbytes, device, region, tuple(chunks), session)
        with self._lock:
            self._uploads[digest, session] = upload
        return upload

    def view(self, upload: Upload, index: int) -> memoryview:
        """Where a chunk of an upload belongs."""
        start, end = upload.span(index)
        return self._pools[upload.device].view(upload.region)[start:end]

    def check(self, upload: Upload, index: int) -> bool:
        """Verify a chunk that has arrived; nobody may be able to write it any more."""
        good = blake3.blake3(self.view(upload, index)).digest() == upload.chunks[index]
        if good:
            upload.verified.add(index)
        upload.touched = time.monotonic()
        return good

    def complete(self, upload: Upload) -> bool:
        """Turn a fully verified upload into a constant; False while chunks are missing."""
        if upload.missing():
            return False
        session = upload.session or ""
        with self._lock:
            self._uploads.pop((upload.digest, upload.session), None)
        self._adopt(session, upload.device, upload.digest, upload.region, upload.nbytes)
        return True

    def put(self, session: str, device: str, digest: str, data: memoryview) -> None:
        """Copy a constant in, verifying the copy; GEN0425 when it is not what `digest` says."""
        region = self._allocate(device, data.nbytes)
        target = self._pools[device].view(region)
        chunks = []
        for start in range(0, max(data.nbytes, 1), CHUNK):
            part = target[start : start + CHUNK]
            part[:] = data[start : start + CHUNK]
            chunks.append(blake3.blake3(part).digest())
        if combine(chunks, data.nbytes) != digest:
            self._release(device, region, data.nbytes)
            raise GenieError(
                "GEN0425",
                "a constant does not match its digest",
                remedy="restore the weights file beside the plan, or compile again",
                context={"digest": digest},
            )
        self._adopt(session, device, digest, region, data.nbytes)

    def pin(self, device: str, digests: Iterable[str]) -> dict[str, Region] | None:
        """Hold constants on a device for a plan: digest → region; None when one is missing."""
        wanted = list(digests)
        with self._lock:
            if any((device, digest) not in self._resident for digest in wanted):
                return None
            found = {}
            for digest in wanted:
                resident = self._resident[device, digest]
                resident.pins += 1
                found[digest] = resident.region
            return found

    def regions(self, device: str, digests: Iterable[str]) -> dict[str, Region]:
        """Where constants lie that the caller has pinned: digest → region."""
        with self._lock:
            return {digest: self._resident[device, digest].region for digest in digests}

    def unpin(self, device: str, digests: Iterable[str]) -> None:
        """Undo `pin`; a constant that nobody pins or claims any more is dropped."""
        dropped = []
        with self._lock:
            for digest in digests:
                resident = self._resident[device, digest]
                resident.pins -= 1
                if resident.pins == 0 and not resident.claims:
                    dropped.append(self._resident.pop((device, digest)))
        for resident in dropped:
            self._release(device, resident.region, resident.nbytes)

    def abandon(self, session: str) -> None:
        """A session ended: its claims are void, its unfinished uploads may be taken over."""
        dropped = []
        with self._lock:
            for resident in self._resident.values():
                resident.claims.discard(session)
            for key in [key for key in self._uploads if key[1] == session]:
                upload = self._uploads.pop(key)
                upload.session = None
                if upload.verified and (upload.digest, None) not in self._uploads:
                    self._uploads[upload.digest, None] = upload
                else:
                    dropped.append(upload)
        for upload in dropped:
            self._release(upload.device, upload.region, upload.nbytes)

    def sweep(self) -> None:
        """Drop broken-off uploads that nobody went on with in time."""
        horizon = time.monotonic() - self._keep
        with self._lock:
            old = [
                key
                for key, upload in self._uploads.items()
                if key[1] is None and upload.touched < horizon
            ]
            dropped = [self._uploads.pop(key) for key in old]
        for upload in dropped:
            self._release(upload.device, upload.region, upload.nbytes)

    def drop_unclaimed(self, device: str) -> bool:
        """Drop what no loaded plan and no session holds, broken-off uploads too; False if none."""
        with self._lock:
            keys = [
                key
                for key, resident in self._resident.items()
                if key[0] == device and resident.pins == 0 and not resident.claims
            ]
            stray = [k for k, u in self._uploads.items() if k[1] is None and u.device == device]
            found: list[_Resident | Upload] = [self._resident.pop(key) for key in keys]
            found += [self._uploads.pop(key) for key in stray]
        for item in found:
            self._release(device, item.region, item.nbytes)
        return bool(found)

    def _copy_over(self, session: str, device: str, digest: str, nbytes: int) -> bool:
        with self._lock:
            source = next((d for d, key in self._resident if key == digest and d != device), None)
            if source is None:
                return False
            held = self._resident[source, digest]
            held.pins += 1
        # The lock is not held here: allocating may wait for the budget, which may ask us to drop.
        try:
            region = self._allocate(device, nbytes)
            self._pools[device].view(region)[:] = self._pools[source].view(held.region)
            self._adopt(session, device, digest, region, nbytes)
        finally:
            with self._lock:
                held.pins -= 1
        return True

    def _adopt(self, session: str, device: str, digest: str, region: Region, nbytes: int) -> None:
        with self._lock:
            if (device, digest) not in self._resident:
                self._resident[device, digest] = _Resident(region, nbytes, claims={session})
                return
            self._resident[device, digest].claims.add(session)
        self._release(device, region, nbytes)

    def _allocate(self, device: str, nbytes: int) -> Region:
        self._budget.check_fits(device, nbytes)
        self._budget.hold_constants(device, nbytes, self._patience)
        try:
            return self._pools[device].allocate(nbytes, owner=OWNER, timeout=self._patience)
        except BaseException:
            self._budget.drop_constants(device, nbytes)
            raise

    def _release(self, device: str, region: Region, nbytes: int) -> None:
        self._pools[device].free(region)
        self._budget.drop_constants(device, nbytes)
