"""DMAHandle: the name under which a peer may reach a piece of registered memory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from genie_transport._errors import TransferError

__all__ = ["DMAHandle"]

_U63 = 1 << 63
_SAFE = 1 << 53  # beyond it a JSON number is no longer exact everywhere
_DEVICE = re.compile(r"[a-z][a-z0-9_:.-]{0,63}")
_TRANSPORT_KEYS = ("iova", "lkey", "rkey")
_FIELDS = ("arena", "offset", "length", "device", "epoch", "key", "transport_keys")


@dataclass(frozen=True)
class DMAHandle:
    """A registered range of memory, or a part of one.

    `arena` numbers the registration within its manager; `offset` and `length` are bytes within
    the arena; `key` (16 random bytes) is what grants access, bound to one session and its
    `epoch`. `transport_keys` may hold `iova`, `lkey`, `rkey` where the path needs them. The key
    is left out of repr() so that logs cannot leak it.
    """

    arena: int
    offset: int
    length: int
    device: str
    epoch: int
    key: bytes = field(repr=False)
    transport_keys: Mapping[str, int] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        for name in ("arena", "offset", "length", "epoch"):
            _check_integer(name, getattr(self, name))
        if self.offset + self.length >= _U63:
            raise _malformed("offset", "offset + length reaches beyond 2^63")
        _check_device(self.device)
        _check_key(self.key)
        for name, value in self.transport_keys.items():
            if name not in _TRANSPORT_KEYS:
                raise _malformed("transport_keys", "only iova, lkey and rkey exist")
            _check_integer(name, value, 1 << 64)
        # A view of a copy: frozen, so that a handle cannot change after it was checked.
        frozen = MappingProxyType(dict(self.transport_keys))
        object.__setattr__(self, "transport_keys", frozen)

    def part(self, offset: int, length: int) -> DMAHandle:
        """The handle of `length` bytes at `offset` (relative to this handle), same key.

        Raises TransferError GEN0625 when that is not within this handle.
        """
        if offset < 0 or length < 0 or offset + length > self.length:
            raise TransferError(
                "GEN0625",
                f"bytes {offset} to {offset + length} leave the handle's {self.length} bytes",
            )
        return dataclasses.replace(self, offset=self.offset + offset, length=length)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the key in hex, integers of 2^53 and more as decimal strings.

        The result holds the access key: send it only over the authenticated control channel.
        """
        return {
            "arena": _number(self.arena),
            "offset": _number(self.offset),
            "length": _number(self.length),
            "device": self.device,
            "epoch": _number(self.epoch),
            "key": self.key.hex(),
            "transport_keys": {k: _number(v) for k, v in sorted(self.transport_keys.items())},
        }

    @classmethod
    def from_json(cls, data: object) -> DMAHandle:
        """Rebuild a handle that a peer sent.

        Strict: every field exactly once, of its exact type, nothing else. Raises TransferError
        GEN0622 naming the field, and never echoes what the peer sent.
        """
        if not isinstance(data, dict):
            raise _malformed("handle", "not a JSON object")
        for name in _FIELDS:
            if name not in data:
                raise _malformed(name, "missing")
        if len(data) != len(_FIELDS):
            raise _malformed("handle", "unknown fields")
        key = data["key"]
        if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{32}", key):
            raise _malformed("key", "not 32 lower-case hexadecimal digits")
        extra = data["transport_keys"]
        if not isinstance(extra, dict) or any(name not in _TRANSPORT_KEYS for name in extra):
            raise _malformed("transport_keys", "not an object of iova, lkey, rkey")
        return cls(
            arena=_integer("arena", data["arena"]),
            offset=_integer("offset", data["offset"]),
            length=_integer("length", data["length"]),
            device=data["device"],
            epoch=_integer("epoch", data["epoch"]),
            key=bytes.fromhex(key),
            transport_keys={name: _integer(name, value) for name, value in extra.items()},
        )


def _number(value: int) -> int | str:
    return value if value < _SAFE else str(value)


def _integer(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < _SAFE:
            return value
        raise _malformed(name, "integers of 2^53 and more are written as strings")
    # The length bound comes first: int() of a megabyte of digits is slow.
    if isinstance(value, str) and len(value) <= 20 and re.fullmatch(r"[1-9][0-9]*", value):
        number = int(value)
        if number >= _SAFE:
            return number
    raise _malformed(name, "not an integer")


def _check_device(value: object) -> None:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise _malformed("device", "not a device name")


def _check_key(value: object) -> None:
    if not isinstance(value, bytes) or len(value) != 16:
        raise _malformed("key", "not 16 bytes")


def _check_integer(name: str, value: object, bound: int = _U63) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < bound:
        raise _malformed(name, f"not an integer from 0 to {bound - 1}")


def _malformed(name: str, why: str) -> TransferError:
    return TransferError("GEN0622", f"malformed handle: {name}: {why}", context={"field": name})
