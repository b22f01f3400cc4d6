"""The files that hold published outputs: raw dense values, one after the other, with a digest.

Each file belongs to one attempt and is complete before it gets its name. What lies where is in
the ledger's record; the digest (that of `genie_schemas.constants`) covers the whole file.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import blake3

from genie_runtime.faults import reach
from genie_schemas import constants
from genie_schemas.errors import GenieError, Place

_NAME = re.compile(r"\.?[0-9a-f]{32}-(\d+)-\d+\.(?:bin|tmp)")


@dataclass(frozen=True)
class OutputRecord:
    """One returned value: its concrete type ("f32[1,10]") and its dense bytes in that order."""

    value: str
    type: str
    data: memoryview


@dataclass(frozen=True)
class StoredOutput:
    """Where one returned value lies in its file."""

    value: str
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class StoredOutputs:
    """A recorded publication."""

    path: Path
    digest: str
    outputs: tuple[StoredOutput, ...]

    def made_by(self, epoch: int, attempt: int) -> bool:
        """Whether that attempt published these outputs."""
        return self.path.name.endswith(f"-{epoch}-{attempt}.bin")

    def read(self) -> memoryview:
        """The file's bytes, mapped, after checking its digest; GEN0424 when it is damaged."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = (
                    memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                    if size
                    else memoryview(b"")
                )
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from None
        if constants.digest(data) != self.digest:
            raise self._damaged("its content does not match the digest in the ledger")
        return data

    def _damaged(self, cause: str) -> GenieError:
        return GenieError(
            "GEN0424",
            "the recorded outputs of the run cannot be used",
            Place(file=str(self.path)),
            cause,
            "choose a new --run-id to run anew, and check the disk",
        )


def file_name(run_id: str, epoch: int, attempt: int) -> str:
    """The name of an attempt's file; the run id is hashed because it may hold any length."""
    return f"{hashlib.sha256(run_id.encode()).hexdigest()[:32]}-{epoch}-{attempt}.bin"


def epoch_of(name: str) -> int | None:
    """The epoch in the name of an outputs file, None for a file that is not ours."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def write(folder: Path, name: str, outputs: Sequence[OutputRecord]) -> tuple[int, str]:
    """Write the values durably under `folder/name`; returns (bytes, digest). Raises OSError."""
    temporary = folder / f".{name.removesuffix('.bin')}.tmp"
    chunks = _Chunks()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for output in outputs:
            rest = output.data
            chunks.update(rest)
            while rest.nbytes:
                rest = rest[os.write(fd, rest[: 1 << 30]) :]
        os.fsync(fd)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    reach("publish.after_file")
    temporary.rename(folder / name)
    sync_folder(folder)
    reach("publish.after_rename")
    return chunks.nbytes, chunks.digest()


class _Chunks:
    """The chunked digest of a content that comes in pieces."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._done: list[bytes] = []
        self._open = blake3.blake3()

    def update(self, data: memoryview) -> None:
        while data.nbytes:
            room = constants.CHUNK - self.nbytes % constants.CHUNK
            part = data[:room]
            self._open.update(part)
            self.nbytes += part.nbytes
            data = data[part.nbytes :]
            if self.nbytes % constants.CHUNK == 0:
                self._done.append(self._open.digest())
                self._open = blake3.blake3()

    def digest(self) -> str:
        tail = self.nbytes % constants.CHUNK or not self.nbytes
        return constants.combine(self._done + [self._open.digest()] * bool(tail), self.nbytes)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def describe(outputs: Sequence[OutputRecord]) -> str:
    """The record's text for the values, in the order of the file."""
    items, offset = [], 0
    for output in outputs:
        items.append([output.value, output.type, offset, output.data.nbytes])
        offset += output.data.nbytes
    return json.dumps(items, ensure_ascii=True)


def parse(text: str) -> tuple[StoredOutput, ...]:
    """The inverse of `describe`."""
    return tuple(StoredOutput(str(v), str(t), int(o), int(n)) for v, t, o, n in json.loads(text))
