"""Regions filled with bytes that tell where they belong."""

from __future__ import annotations

import random

from genie_runtime.pool import ArenaPool
from genie_runtime.ports import Region

KIB = 1 << 10
MIB = 1 << 20


def mark(pool: ArenaPool, region: Region, seed: int) -> None:
    """Fill a region with bytes that tell where they belong."""
    pool.view(region)[:] = random.Random(seed).randbytes(region.length)


def holds(pool: ArenaPool, region: Region, seed: int) -> bool:
    return bytes(pool.view(region)) == random.Random(seed).randbytes(region.length)
