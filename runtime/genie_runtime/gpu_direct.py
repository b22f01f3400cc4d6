"""How bytes get between the network and a GPU: straight, or through pinned memory of the host.

GPU-direct needs four things, of which three belong to the machine: a driver, a kernel module that
lets a NIC reach GPU memory, and a gpudev driver of DPDK for the GPU. The fourth is a transport
that registers GPU memory. This build has none: Debian's DPDK comes without a gpudev driver for
CUDA, so that it could not have been tried. Everything here therefore ends at the bounce buffers,
and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from genie_runtime.ports import DeviceSpec
from genie_schemas.errors import GenieError

__all__ = ["CHOICES", "Choice", "GpuPath", "choose", "loaded_modules", "obstacles"]

Choice = Literal["on", "off", "auto"]
CHOICES: tuple[Choice, ...] = get_args(Choice)

_MODULES = ("nvidia_peermem", "gdrdrv")
_PMDS = ("usr/lib", "usr/lib64", "usr/local/lib", "usr/local/lib64")


@dataclass(frozen=True)
class GpuPath:
    """What is in force, and why. "none" when no GPU is offered."""

    mode: Literal["direct", "bounce", "none"]
    reason: str


def loaded_modules(root: Path = Path("/")) -> list[str]:
    """The kernel modules that are loaded and let a NIC reach GPU memory."""
    return [name for name in _MODULES if (root / "sys/module" / name).is_dir()]


def obstacles(root: Path = Path("/")) -> list[str]:
    """What stands between the machine at `root` and GPU-direct; the first thing to mend first."""
    found = []
    if not (root / "sys/module/nvidia").is_dir():
        found.append("no NVIDIA driver is loaded")
    if not loaded_modules(root):
        found.append(f"neither {' nor '.join(_MODULES)} is loaded")
    if not _gpudev(root):
        found.append("DPDK has no gpudev driver for CUDA (librte_gpu_cuda)")
    found.append("no transport of this build registers GPU memory")
    return found


def _gpudev(root: Path) -> bool:
    """Whether DPDK's folder of drivers, as distributions lay it out, has the one for CUDA."""
    patterns = ("dpdk/pmds-*/librte_gpu_cuda.so*", "*/dpdk/pmds-*/librte_gpu_cuda.so*")
    return any(any((root / lib).glob(pattern)) for lib in _PMDS for pattern in patterns)


def choose(
    wanted: Choice, devices: Sequence[DeviceSpec], lacking: Sequence[str] | None = None
) -> GpuPath:
    """What is in force for `--gpu-direct` and these devices.

    `lacking` are the machine's `obstacles`, looked up when they are not given. Raises GenieError
    GEN0473 for "on" where GPU-direct cannot be had.
    """
    lacking = obstacles() if lacking is None else lacking
    cudas = [device.id for device in devices if device.kind == "cuda"]
    if wanted == "on" and (lacking or not cudas):
        raise GenieError(
            "GEN0473",
            "GPU-direct was asked for and cannot be had",
            cause="; ".join(lacking if cudas else ["no CUDA device is offered", *lacking]),
            remedy="start genied with --gpu-direct auto: values then pass through pinned memory",
        )
    if not cudas:
        return GpuPath("none", "no CUDA device is offered")
    if wanted == "off":
        return GpuPath("bounce", "asked for: --gpu-direct off")
    if lacking:
        return GpuPath("bounce", lacking[0])
    return GpuPath("direct", "the machine and the transport have it")
