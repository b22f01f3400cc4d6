"""Inputs from files, outputs to files: .npy, .npz and .safetensors, data and nothing that runs."""

from __future__ import annotations

import json
import mmap
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genie.client.tensors import Tensor, storage
from genie_schemas.constants import MAX_HEADER, parse_header
from genie_schemas.errors import GenieError, Place
from genie_schemas.types import DTYPES, FROM_TORCH

__all__ = ["check_writable", "load_array", "load_inputs", "save_tensors"]

_TO_SAFETENSORS = {
    "f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "i64": "I64", "i32": "I32",
    "i16": "I16", "i8": "I8", "u8": "U8", "u16": "U16", "u32": "U32", "u64": "U64",
    "bool": "BOOL", "f8e4m3fn": "F8_E4M3", "f8e5m2": "F8_E5M2", "c64": "C64",
}  # fmt: skip


def _unreadable(path: Path, cause: str) -> GenieError:
    return GenieError(
        "GEN0406",
        f"the input file {path.name} cannot be read",
        Place(file=str(path)),
        cause,
        "give a .npy, .npz or .safetensors file of plain arrays",
    )


def load_array(path: Path) -> Tensor:
    """One array out of a .npy file, or out of a .safetensors file that holds one. GEN0406."""
    if path.suffix == ".npy":
        return _npy(path)
    found = load_inputs(path)
    if len(found) != 1:
        raise _unreadable(path, f"it holds {len(found)} arrays; --inputs takes them all by name")
    return next(iter(found.values()))


def load_inputs(path: Path) -> dict[str, Tensor]:
    """Every array of a .npz or .safetensors file, by name. Raises GEN0406."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {
                    name: Tensor(str(array.dtype), array)
                    for name, array in ((n, archive[n]) for n in archive.files)
                }
        except Exception as error:
            raise _unreadable(path, _reason(error)) from None
    if path.suffix == ".safetensors":
        return _safetensors(path)
    raise _unreadable(path, f"its name ends in {path.suffix or 'nothing'!r}")


def _npy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, _reason(error)) from None
    if not isinstance(array, np.ndarray):
        raise _unreadable(path, "it is an archive of several arrays; name it .npz")
    return Tensor(str(array.dtype), array)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if str(error).startswith("Cannot load file"):  # NumPy takes whatever it does not know for one
        return "it is no .npy file; pickled objects are never loaded"
    if "allow_pickle" in str(error):
        return "it holds pickled objects, which are never loaded"
    return str(error)[:200] or type(error).__name__


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise _unreadable(path, "it is no safetensors file")
            raw = file.read(length)
            entries = parse_header(path, raw, size - 8 - length)
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise _unreadable(path, _reason(error)) from None
    except GenieError as error:
        raise _unreadable(path, error.cause or error.message) from None
    return {
        name: Tensor(
            DTYPES[entry.dtype][0],
            np.frombuffer(data[entry.start : entry.end], storage(entry.dtype)).reshape(entry.shape),
        )
        for name, entry in entries.items()
    }


def check_writable(path: Path) -> None:
    """Refuse an output file whose folder cannot be written to, before anything runs. GEN0408."""
    folder = path.parent
    if path.is_dir():
        raise _unwritable(path, "it is a folder")
    if not folder.is_dir():
        raise _unwritable(path, f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(path, f"no permission to write in {folder}")


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a .safetensors file under a temporary name, then rename it. Raises GEN0408."""
    header: dict[str, object] = {}
    offset = 0
    for name, tensor in sorted(tensors.items()):
        dtype = _TO_SAFETENSORS.get(FROM_TORCH[tensor.dtype])
        if dtype is None:
            raise _unwritable(path, f"safetensors cannot hold {tensor.dtype} (output {name!r})")
        end = offset + tensor.array.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for _, tensor in sorted(tensors.items()):
                file.write(np.ascontiguousarray(tensor.array).reshape(-1).view(np.uint8).data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error.strerror or str(error)) from None


def _unwritable(path: Path, cause: str) -> GenieError:
    return GenieError(
        "GEN0408",
        "the outputs cannot be written",
        Place(file=str(path)),
        cause,
        "name another file with --output",
    )
