"""Constants beside a plan: chunked digests, and safetensors files read without trusting them.

A digest is BLAKE3 over the length (u64, little-endian) and the BLAKE3 digests of the content's
chunks of `CHUNK` bytes. Whoever holds the chunk digests can verify, and resume, chunk by chunk.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3

from genie_schemas.closing import Closing
from genie_schemas.errors import GenieError, Place

CHUNK = 4 * 1024 * 1024
MAX_HEADER = 16 * 1024 * 1024
MAX_DIMENSIONS = 64
"""More than any tensor has; a longer shape would make its product expensive."""
_SAFETENSORS_DTYPES = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I64": "i64", "I32": "i32",
    "I16": "i16", "I8": "i8", "U8": "u8", "U16": "u16", "U32": "u32", "U64": "u64",
    "BOOL": "bool", "F8_E4M3": "f8e4m3fn", "F8_E5M2": "f8e5m2", "C64": "c64",
}  # fmt: skip

Buffer = bytes | bytearray | memoryview | mmap.mmap


def chunk_digests(buffer: Buffer) -> list[bytes]:
    """BLAKE3 of each chunk of `CHUNK` bytes; an empty buffer has one, of the empty string."""
    view = memoryview(buffer).cast("B")
    starts = range(0, max(view.nbytes, 1), CHUNK)
    return [blake3.blake3(view[i : i + CHUNK]).digest() for i in starts]


def combine(chunks: list[bytes], nbytes: int) -> str:
    """The digest of a content of `nbytes` with these chunk digests."""
    hasher = blake3.blake3(nbytes.to_bytes(8, "little"))
    for chunk in chunks:
        hasher.update(chunk)
    return "blake3:" + hasher.hexdigest()


def digest(buffer: Buffer) -> str:
    """The digest of a content, `blake3:` and 64 hex digits."""
    view = memoryview(buffer)
    return combine(chunk_digests(view), view.nbytes)


def file_digest(path: Path) -> str:
    """The digest of a file's content, read chunk by chunk. Raises OSError."""
    chunks, total = [], 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            chunks.append(blake3.blake3(block).digest())
            total += len(block)
    return combine(chunks or [blake3.blake3(b"").digest()], total)


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies in a file: dtype (plan name), shape, and byte range in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def _bad(path: Path, cause: str) -> GenieError:
    return GenieError(
        "GEN0316",
        f"{path.name} is no safetensors file that can be trusted",
        Place(file=str(path)),
        cause,
        "compile the plan again, or fetch the weights file anew",
    )


def parse_header(path: Path, raw: bytes, data_bytes: int) -> dict[str, TensorEntry]:
    """Read the JSON header `raw` of a safetensors file whose data part has `data_bytes` bytes.

    Every range is checked: inside the file, not overlapping, as long as dtype and shape say.
    Raises GenieError GEN0316.
    """
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its header is no JSON: {str(error)[:120]}") from None
    if not isinstance(header, dict):
        raise _bad(path, "its header is no object")
    offset = 8 + len(raw)
    entries: dict[str, TensorEntry] = {}
    for name, item in header.items():
        if name != "__metadata__":
            entries[name] = _entry(path, name, item, offset, data_bytes)
    ranges = sorted((e.start, e.end) for e in entries.values())
    if any(a[1] > b[0] for a, b in itertools.pairwise(ranges)):
        raise _bad(path, "two tensors overlap")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in it")
    return found


def _entry(path: Path, name: str, item: Any, offset: int, data_bytes: int) -> TensorEntry:
    from genie_schemas.types import DTYPES

    try:
        dtype = _SAFETENSORS_DTYPES[item["dtype"]]
        shape, offsets = item["shape"], item["data_offsets"]
    except (KeyError, TypeError):
        raise _bad(path, f"the entry of {name[:80]!r} is malformed") from None
    lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    if not lists or len(shape) > MAX_DIMENSIONS:
        raise _bad(path, f"the entry of {name[:80]!r} is malformed")
    start, end = offsets
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
        raise _bad(path, f"the entry of {name[:80]!r} has a size that is no natural number")
    nbytes = DTYPES[dtype][1]
    for size in shape:
        nbytes *= size
    if not (start <= end <= data_bytes and end - start == nbytes):
        raise _bad(path, f"the range of {name[:80]!r} does not fit its shape or the file")
    return TensorEntry(dtype, tuple(shape), offset + start, offset + end)


class ConstantFiles(Closing):
    """The safetensors files of one folder, opened beneath it without following links.

    `view("name.<16 hex>.safetensors#key")` returns the tensor's bytes, mapped and not copied.
    Close it (or use it in a with statement) to drop the maps that nobody views any more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, tuple[mmap.mmap, dict[str, TensorEntry]]] = {}

    def close(self) -> None:
        """Forget the files; a map that is still viewed is unmapped with its last view."""
        self._open.clear()

    def entry(self, source: str) -> TensorEntry:
        """Where the tensor of `source` lies; GenieError GEN0315, GEN0316 or GEN0317."""
        return self._find(source)[1]

    def view(self, source: str) -> memoryview:
        """The bytes of the tensor of `source`; GenieError GEN0315, GEN0316 or GEN0317."""
        mapped, entry = self._find(source)
        return memoryview(mapped)[entry.start : entry.end]

    def _find(self, source: str) -> tuple[mmap.mmap, TensorEntry]:
        name, _, key = source.partition("#")
        if name not in self._open:
            self._open[name] = self._map(name)
        mapped, entries = self._open[name]
        if key not in entries:
            raise GenieError(
                "GEN0316",
                f"{name} holds no tensor {key!r}",
                Place(file=str(self.folder / name)),
                "the plan and its weights file are not of one compilation",
                "compile the plan again",
            )
        return mapped, entries[key]

    def _map(self, name: str) -> tuple[mmap.mmap, dict[str, TensorEntry]]:
        path = self.folder / name
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise GenieError(
                "GEN0317",
                f"the constant file {name[:120]!r} leaves the plan's folder",
                remedy="a plan names its weights by file name alone; do not run this plan",
            )
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except UnicodeEncodeError:
            raise _bad(path, "its name is no text") from None
        except OSError as error:
            if os.path.islink(path):
                raise GenieError(
                    "GEN0317",
                    f"{name} is a symbolic link",
                    Place(file=str(path)),
                    "links are not followed, so that a plan cannot reach outside its folder",
                    "put the file itself beside the plan",
                ) from None
            raise GenieError(
                "GEN0315",
                f"the weights file {name} cannot be opened",
                Place(file=str(path)),
                error.strerror,
                "keep the weights file beside the plan, or compile again",
            ) from None
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size < 8:
            os.close(fd)
            raise _bad(path, "it is no regular file of at least 8 bytes")
        with os.fdopen(fd, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(MAX_HEADER, info.st_size - 8):
                raise _bad(path, f"its header claims {length} bytes")
            raw = file.read(length)
            entries = parse_header(path, raw, info.st_size - 8 - length)
            return mmap.mmap(fd, 0, access=mmap.ACCESS_READ), entries


def missing_sources(folder: Path, sources: Iterator[str]) -> list[str]:
    """File names among `sources` that `folder` does not hold, sorted."""
    files = {source.partition("#")[0] for source in sources}
    return sorted(name for name in files if not os.path.isfile(folder / name))
