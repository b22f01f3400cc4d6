"""The devices of a node: reading `--device`, and finding what the machine has without torch."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genie_runtime.ports import DeviceSpec
from genie_schemas.errors import GenieError

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SPEC = re.compile(r"(cpu|cuda)(?::(\d{1,3}))?(?::memory=(\d{1,12})(B|KiB|MiB|GiB|TiB))?")


@dataclass(frozen=True)
class Accelerator:
    """A CUDA device as the driver reports it."""

    index: int
    name: str
    memory_bytes: int


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its cgroup's if less."""
    import psutil

    total = int(psutil.virtual_memory().total)
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(text)) if text.isdecimal() else total


class _NvmlMemory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def accelerators() -> list[Accelerator]:
    """The CUDA devices that the driver's management library reports; none without a driver.

    Asked through NVML directly: it needs no package, and importing torch would take seconds.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    if nvml.nvmlInit_v2() != 0:
        return []
    try:
        count = ctypes.c_uint(0)
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        found = [_accelerator(nvml, index) for index in range(count.value)]
        return [device for device in found if device is not None]
    finally:
        nvml.nvmlShutdown()


def _accelerator(nvml: ctypes.CDLL, index: int) -> Accelerator | None:
    handle, memory = ctypes.c_void_p(), _NvmlMemory()
    name = ctypes.create_string_buffer(96)
    if (
        nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != 0
        or nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name))) != 0
        or nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0
    ):
        return None
    return Accelerator(index, name.value.decode(errors="replace"), int(memory.total))


def parse_size(text: str) -> int:
    """Bytes of a size such as "2GiB"; GEN0515."""
    match = re.fullmatch(r"(\d{1,12})\s*(B|KiB|MiB|GiB|TiB)", text)
    if match is None:
        raise GenieError("GEN0515", f"{text[:40]!r} is no size", remedy="write a size as in 2GiB")
    return int(match[1]) * _UNITS[match[2]]


def parse_devices(specs: Sequence[str]) -> list[DeviceSpec]:
    """The devices that `--device` options name: d0, d1, … in their order.

    Without any: one CPU device with 80 % of the memory, then every CUDA device. Raises GEN0512
    for an unreadable option and GEN0513 for an accelerator that is not there.
    """
    cpu_memory = machine_memory() * 4 // 5
    if not specs:
        cudas = accelerators()
        return [
            DeviceSpec("d0", "cpu", 0, cpu_memory),
            *(
                DeviceSpec(f"d{n}", "cuda", found.index, found.memory_bytes * 9 // 10)
                for n, found in enumerate(cudas, 1)
            ),
        ]
    return [_device(f"d{n}", text, cpu_memory) for n, text in enumerate(specs)]


def _device(name: str, text: str, cpu_memory: int) -> DeviceSpec:
    match = _SPEC.fullmatch(text)
    if match is None:
        raise GenieError(
            "GEN0512",
            f"{text[:60]!r} is no device",
            remedy="write cpu, cpu:memory=2GiB, cuda:0 or cuda:0:memory=20GiB",
        )
    kind, index = match[1], int(match[2] or 0)
    memory = int(match[3]) * _UNITS[match[4]] if match[3] else None
    if memory == 0:
        raise GenieError("GEN0512", f"{text!r} offers no memory", remedy="give it some")
    if kind == "cpu":
        return DeviceSpec(name, "cpu", index, memory or cpu_memory)
    found = {device.index: device for device in accelerators()}
    if index not in found:
        have = ", ".join(f"cuda:{i}" for i in sorted(found)) or "none"
        raise GenieError(
            "GEN0513",
            f"this machine has no device {text.split(':memory')[0]}",
            cause=f"CUDA devices that the driver reports: {have}",
            remedy="name one of these, or none to offer all; `genie doctor` tells more",
        )
    return DeviceSpec(name, "cuda", index, memory or found[index].memory_bytes * 9 // 10)
