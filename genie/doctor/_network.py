"""Probes of the data plane's parts: DPDK, NICs, RDMA, GPU-direct, UCX."""

from __future__ import annotations

import re
from collections.abc import Iterator

from genie.doctor._check import Check, optional
from genie.doctor._machine import Machine, as_root
from genie_schemas.versions import SUPPORT, at_least

__all__ = ["network"]

_LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/lib")


def network(machine: Machine) -> Iterator[Check]:
    """Probe DPDK, NICs, RDMA, GPU-direct and UCX, in this order."""
    yield _dpdk(machine)
    yield _nics(machine)
    yield _rdma(machine)
    yield _gpu_direct(machine)
    yield _ucx(machine)


def _dpdk(machine: Machine) -> Check:
    floor = SUPPORT["dpdk"].floor
    version = machine.run("pkg-config", "--modversion", "libdpdk") or ""
    if not re.match(r"\d", version):
        version = ""
    found = version or "not installed"
    if not version and (abi := _soname(machine, "librte_eal")):
        # DPDK's ABI changes with each November release and is numbered one above its year.
        version = f"{abi - 1}.11"
        found = f"{version} (libraries only, no headers)"
    fine = bool(version) and at_least(version, floor)
    remedy = machine.apt("dpdk-dev", "libdpdk-dev")
    return optional("dpdk", found, f"{floor} or newer", fine, remedy)


def _soname(machine: Machine, library: str) -> int | None:
    """The newest ABI number N among files named `library`.so.N in the usual folders."""
    numbers: list[int] = []
    for folder in _LIBRARY_FOLDERS:
        names = [entry.name for entry in machine.entries(folder)]
        # Debian keeps libraries one level down, in a folder named after the architecture.
        for triplet in (name for name in names if name.endswith("-linux-gnu")):
            names += [entry.name for entry in machine.entries(f"{folder}/{triplet}")]
        for name in names:
            if match := re.fullmatch(re.escape(library) + r"\.so\.(\d{1,4})(\.\d+)*", name):
                numbers.append(int(match.group(1)))
    return max(numbers, default=None)


def _nics(machine: Machine) -> Check:
    """Interfaces as the kernel lists them over netlink, each with its driver."""
    from pyroute2 import IPRoute

    needs = "an interface besides loopback, with a driver"
    try:
        with IPRoute() as netlink:
            links = [
                (
                    str(link.get_attr("IFLA_IFNAME")),
                    str(link.get_attr("IFLA_OPERSTATE") or "unknown").lower(),
                    int(link.get_attr("IFLA_MTU") or 0),
                )
                for link in netlink.get_links()
            ]
    except OSError as error:
        return optional("nics", f"netlink refuses: {error}", needs, False, as_root("genie doctor"))
    shown = []
    for name, state, mtu in sorted(links):
        # Devices without a driver behind them are the kernel's own: loopback, bridges, veth.
        driver = machine.file(f"/sys/class/net/{name}/device/driver")
        if driver.exists():
            shown.append(f"{name} ({driver.resolve().name}, {state}, mtu {mtu})")
    return optional("nics", ", ".join(shown) or "none", needs, bool(shown), None)


def _rdma(machine: Machine) -> Check:
    devices = machine.entries("/sys/class/infiniband")
    if not devices:
        return optional("rdma", "none", "an RDMA device", False, None)
    shown = []
    for device in devices:
        folder = f"/sys/class/infiniband/{device.name}"
        driver = machine.file(f"{folder}/device/driver")
        state = machine.read(f"{folder}/ports/1/state").partition(": ")[2].lower() or "unknown"
        name = driver.resolve().name if driver.exists() else "software"
        shown.append(f"{device.name} ({name}, {state})")
    # The kernel's devices are of no use to a program without the user-space verbs library.
    usable = _soname(machine, "libibverbs") is not None
    found = ", ".join(shown) + ("" if usable else "; no libibverbs")
    return optional("rdma", found, "an RDMA device", usable, machine.apt("rdma-core"))


def _gpu_direct(machine: Machine) -> Check:
    """Whether bytes go straight between a NIC and a GPU, and what stands in the way."""
    from genie_runtime.gpu_direct import loaded_modules, obstacles

    needs = "a module that lets a NIC reach GPU memory, gpudev, and a transport that uses them"
    root = machine.file("/")
    lacking, loaded = obstacles(root), loaded_modules(root)
    if not machine.file("/sys/module/nvidia").is_dir():
        return optional("gpu-direct", "none (no NVIDIA driver)", needs, False, None)
    if not loaded:
        remedy = as_root("modprobe nvidia-peermem")
        return optional("gpu-direct", f"pinned buffers ({lacking[0]})", needs, False, remedy)
    if lacking:
        found = f"{', '.join(loaded)}; pinned buffers ({lacking[0]})"
        return optional("gpu-direct", found, needs, False, None)
    return optional("gpu-direct", ", ".join(loaded), needs, True, None)


def _ucx(machine: Machine) -> Check:
    said = machine.run("ucx_info", "-v") or ""
    match = re.search(r"\d+\.\d+(\.\d+)?", said)
    if match:
        return optional("ucx", match.group(0), "installed", True, None)
    if (abi := _soname(machine, "libucp")) is not None:
        return optional("ucx", f"libucp.so.{abi}", "installed", True, None)
    return optional("ucx", "not installed", "installed", False, machine.apt("ucx-utils", "libucx0"))
