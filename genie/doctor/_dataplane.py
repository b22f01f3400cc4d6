"""Probes of what this installation's data plane can use: modules built, drivers, permissions."""

from __future__ import annotations

import errno
import json
import re
import socket
from collections.abc import Iterator

from genie.doctor._check import Check, optional
from genie.doctor._machine import Machine

__all__ = ["dataplane"]

_AF_XDP = 44  # <linux/socket.h>; Python has no name for it
_DRIVERS = ("net_af_packet", "net_af_xdp", "net_memif", "net_ring")
_CAPABILITIES = {"net_admin": 12, "net_raw": 13, "ipc_lock": 14, "sys_admin": 21, "bpf": 39}
"""Bits of <linux/capability.h> that the paths need, by what the tools call them."""

_MODULES = {
    "_core": ("native", ("g++", "cmake", "ninja-build", "pkg-config", "libssl-dev")),
    "_dpdk": ("native-dpdk", ("dpdk-dev", "libdpdk-dev")),
    "_ucx": ("native-ucx", ("libucx-dev",)),
}
"""Native module → (name of its check, the packages that its build needs)."""

_ASK = """\
import importlib, importlib.util, json
found = {}
for name in NAMES:
    try:
        importlib.import_module("genie_transport." + name)
        found[name] = ""
    except ImportError as error:
        built = importlib.util.find_spec("genie_transport." + name) is not None
        found[name] = str(error) if built else "not built"
print(json.dumps(found))
"""


def dataplane(machine: Machine) -> Iterator[Check]:
    """Probe native modules, DPDK's drivers, packet and XDP sockets, capabilities and iperf3."""
    yield from _modules(machine)
    yield _drivers(machine)
    held = _held(machine)
    yield _sockets(machine, "packet-sockets", socket.AF_PACKET, ("net_raw",))
    yield _sockets(machine, "xdp-sockets", _AF_XDP, ("net_raw", "net_admin", "bpf"))
    yield _capabilities(held)
    yield _iperf3(machine)


def _modules(machine: Machine) -> Iterator[Check]:
    """Imported for real, in a child: a module that was built may lack its libraries now."""
    answered, said = machine.ask_python(f"NAMES = {list(_MODULES)}\n{_ASK}")
    try:
        found = json.loads(said.splitlines()[-1]) if answered else {}
    except (ValueError, IndexError):
        found = {}
    if not isinstance(found, dict):
        found = {}
    for module, (name, packages) in _MODULES.items():
        why = str(found.get(module, "genie_transport does not import"))
        remedy = f"{machine.apt(*packages)} && make setup"
        yield optional(name, why or "built", f"genie_transport.{module}", not why, remedy)


def _drivers(machine: Machine) -> Check:
    """DPDK's drivers that need no NIC, among the plug-ins that it loads at its start."""
    names: set[str] = set()
    for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"):
        places = [folder, *(f"{folder}/{e.name}" for e in machine.entries(folder))]
        for place in (p for p in places if p == folder or p.endswith("-linux-gnu")):
            for plugins in machine.entries(f"{place}/dpdk"):
                if plugins.name.startswith("pmds-"):
                    names |= {e.name for e in machine.entries(f"{place}/dpdk/{plugins.name}")}
    there = [d for d in _DRIVERS if any(re.match(rf"librte_{d}\.so\.\d", n) for n in names)]
    return optional(
        "dpdk-drivers",
        ", ".join(there) or "none",
        ", ".join(_DRIVERS),
        len(there) == len(_DRIVERS),
        machine.apt("dpdk-dev", "libdpdk-dev"),
    )


def _sockets(machine: Machine, name: str, family: int, needed: tuple[str, ...]) -> Check:
    """Opened for real: containers and sandboxes may refuse what root may elsewhere."""
    needs = "for paths over interfaces of the kernel"
    try:
        socket.socket(family, socket.SOCK_RAW).close()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return optional(name, "not permitted", needs, False, _with_capabilities(needed))
        return optional(name, str(error.strerror), needs, False, None)
    if missing := [n for n in needed if n not in _held(machine)]:
        found = f"permitted, but not {', '.join(missing)}"
        return optional(name, found, needs, False, _with_capabilities(needed))
    return optional(name, "permitted", needs, True, None)


def _with_capabilities(names: tuple[str, ...]) -> str:
    """Runs a daemon as this user with these capabilities and no others."""
    sets = ",".join(f"+{name}" for name in names)
    return (
        f"sudo setpriv --reuid=$(id -u) --regid=$(id -g) --init-groups --inh-caps={sets} "
        f"--ambient-caps={sets} $(command -v genied)"
    )


def _held(machine: Machine) -> tuple[str, ...]:
    """The effective capabilities of this process, of those that paths need."""
    match = re.search(r"^CapEff:\s*([0-9a-fA-F]{1,16})$", machine.read("/proc/self/status"), re.M)
    mask = int(match[1], 16) if match else 0
    return tuple(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1)


def _capabilities(held: tuple[str, ...]) -> Check:
    """What DPDK's ports and their network namespaces ask of the kernel."""
    wanted = tuple(_CAPABILITIES)
    fine = len(held) == len(wanted)
    needs = ", ".join(wanted)
    return optional(
        "capabilities", ", ".join(held) or "none", needs, fine, _with_capabilities(wanted)
    )


def _iperf3(machine: Machine) -> Check:
    """Only `genie bench transport` runs it."""
    said = machine.run("iperf3", "--version") or ""
    match = re.search(r"iperf (\d+\.\d+(\.\d+)?)", said)
    found = match[1] if match else "not installed"
    return optional("iperf3", found, "for benchmarks", match is not None, machine.apt("iperf3"))
