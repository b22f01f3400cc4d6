"""Probes of the kernel's side: hugepages, shared memory, memfd, state folder, open files."""

from __future__ import annotations

import fcntl
import os
import re
import resource
from collections.abc import Iterator

from genie.doctor._check import Check, optional, required
from genie.doctor._machine import Machine, as_root

__all__ = ["system"]

MIB = 1 << 20
_HUGE_BYTES = 256 * MIB
_SHM = "/dev/shm"  # noqa: S108  # only its size is read
_SHM_BYTES = 1024 * MIB
_OPEN_FILES = 1024


def system(machine: Machine) -> Iterator[Check]:
    """Probe hugepages, shared memory, memfd, the state folder and open files, in this order."""
    yield _hugepages(machine)
    yield _shared_memory(machine)
    yield _memfd()
    yield _state_folder(machine)
    yield _open_files()


def _hugepages(machine: Machine) -> Check:
    """Pages set aside, by size; DPDK and large arenas take them."""
    needs = f"{_HUGE_BYTES // MIB} MiB set aside"
    folder = "/sys/kernel/mm/hugepages"
    shown, total = [], 0
    for entry in machine.entries(folder):
        match = re.fullmatch(r"hugepages-(\d+)kB", entry.name)
        count = machine.read(f"{folder}/{entry.name}/nr_hugepages")
        free = machine.read(f"{folder}/{entry.name}/free_hugepages")
        if match and count.isdigit() and int(count) > 0:
            size = int(match.group(1)) << 10
            shown.append(f"{count} x {size // MIB} MiB ({free or '?'} free)")
            total += int(count) * size
    remedy = as_root(f"sysctl -w vm.nr_hugepages={_HUGE_BYTES // (2 * MIB)}")
    return optional("hugepages", ", ".join(shown) or "none", needs, total >= _HUGE_BYTES, remedy)


def _shared_memory(machine: Machine) -> Check:
    """Size of /dev/shm: UCX and other programs' rings live there (our arenas are memfds)."""
    needs = f"{_SHM_BYTES // MIB} MiB"
    remedy = as_root(f"mount -o remount,size={_SHM_BYTES // MIB}M {_SHM}")
    try:
        stat = os.statvfs(machine.file(_SHM))
    except OSError as error:
        return optional("shared-memory", f"{_SHM}: {error.strerror}", needs, False, remedy)
    size = stat.f_blocks * stat.f_frsize
    return optional("shared-memory", f"{size // MIB} MiB", needs, size >= _SHM_BYTES, remedy)


def _memfd() -> Check:
    """A sealed memfd, made for real: arenas between genied and its executors are such."""
    needs = "memfd_create with seals"
    # A sandbox's system call filter is the usual reason, and its owner has to widen it.
    remedy = "allow memfd_create and fcntl(F_ADD_SEALS) in this sandbox's system call filter"
    try:
        descriptor = os.memfd_create("genie-doctor", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, 4096)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        finally:
            os.close(descriptor)
    except OSError as error:
        return required("memfd", str(error.strerror), needs, False, remedy)
    return required("memfd", "works", needs, True, None)


def _state_folder(machine: Machine) -> Check:
    """The folder that records runs, or the nearest one above it: it is made on first use."""
    folder = machine.state
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    fine = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    found = f"{machine.state} ({'writable' if fine else f'{folder} is not writable'})"
    remedy = 'export XDG_STATE_HOME="/var/tmp/$USER-state"'
    return required("state-folder", found, "a writable folder", fine, remedy)


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    fine = unlimited or soft >= _OPEN_FILES
    enough = hard == resource.RLIM_INFINITY or hard >= _OPEN_FILES
    remedy = f"ulimit -n {_OPEN_FILES}"
    if not enough:
        remedy = as_root(f"prlimit --pid $$ --nofile={_OPEN_FILES}")
    found = "unlimited" if unlimited else str(soft)
    return required("open-files", found, f"{_OPEN_FILES} or more", fine, remedy)
