"""All probes in the order in which `genie doctor` prints them."""

from __future__ import annotations

from itertools import chain

from genie.doctor._check import Check
from genie.doctor._dataplane import dataplane
from genie.doctor._machine import Machine
from genie.doctor._network import network
from genie.doctor._software import software
from genie.doctor._system import system

__all__ = ["diagnose"]


def diagnose(machine: Machine | None = None, *, strict: bool = False) -> tuple[Check, ...]:
    """Check `machine` (default: this one) against the support matrix.

    With `strict`, optional parts (CUDA, DPDK, RDMA, …) are required. Takes about two seconds, most
    of it a child interpreter importing torch; nothing is changed and nothing raised for what the
    machine lacks.
    """
    machine = machine or Machine()
    checks = chain(software(machine), network(machine), dataplane(machine), system(machine))
    return tuple(check.strict() if strict else check for check in checks)
