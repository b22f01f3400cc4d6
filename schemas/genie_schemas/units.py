"""Sizes and durations as people write them, to integers: bytes and milliseconds."""

from __future__ import annotations

import re

__all__ = ["parse_duration", "parse_size"]

_SIZE_UNITS = {"B": 1} | {
    prefix + suffix: base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}
_DURATION_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_QUANTITY = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))? ?([A-Za-z]+)", re.ASCII)


def _quantity(text: str, units: dict[str, int], kind: str, example: str) -> int:
    match = _QUANTITY.fullmatch(text)
    unit = units.get(match[3]) if match else None
    if match is None or unit is None:
        shown = repr(text if len(text) < 60 else text[:59] + "…")
        raise ValueError(f"{shown} is not a {kind}; write {example} (units: {', '.join(units)})")
    fraction = match[2] or ""
    # Integer arithmetic: 1.1GB is exactly 1,100,000,000 bytes on every machine.
    scaled = int(match[1] + fraction) * unit
    if scaled % 10 ** len(fraction):
        unit_name = next(iter(units))
        raise ValueError(f"{text!r} is not a whole number of {unit_name}; use a smaller unit")
    whole: int = scaled // 10 ** len(fraction)
    return whole


def parse_size(value: str | int) -> int:
    """Bytes of a size such as "2GiB", "1.5GB", "512 MiB" or 1048576 (bytes).

    Decimal units (KB, MB, GB, TB) are powers of 1000, binary ones (KiB, MiB, GiB, TiB) of 1024.

    Raises:
        ValueError: not a size, not a whole number of bytes, or not positive.
    """
    size = value if isinstance(value, int) else _quantity(value, _SIZE_UNITS, "size", "2GiB")
    if not 0 < size < 2**63:
        raise ValueError(f"{value!r} is no possible size; write 1 to 2^63-1 bytes")
    return size


def parse_duration(value: str) -> int:
    """Milliseconds of a duration such as "50ms", "1.5s", "2m" or "1h".

    Raises:
        ValueError: not a duration, or not a whole number of milliseconds.
    """
    return _quantity(value, _DURATION_UNITS, "duration", "30s")
