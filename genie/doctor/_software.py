"""Probes of the interpreter and its packages: Python, torch, CUDA through torch, gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from genie.doctor._check import Check, optional, required
from genie.doctor._machine import Machine
from genie_schemas.versions import SUPPORT, TORCH_TESTED, at_least

__all__ = ["software"]

_ASK_PYTHON = "import platform; print(platform.python_version())"
_ASK_GRPC = "import grpc, grpc_health.v1.health_pb2; print(grpc.__version__)"
_ASK_TORCH = """\
import json, warnings
warnings.simplefilter("ignore")
import torch
count = torch.cuda.device_count() if torch.version.cuda else 0
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "devices": [torch.cuda.get_device_name(i) for i in range(count)],
}))
"""


@dataclass(frozen=True)
class _Torch:
    """What the child interpreter said: `cuda` is the build's CUDA version, None for a CPU build."""

    version: str
    cuda: str | None
    devices: tuple[str, ...]


def software(machine: Machine) -> Iterator[Check]:
    """Probe Python, torch, CUDA and gRPC, in this order."""
    yield _python(machine)
    answered, said = machine.ask_python(_ASK_TORCH)
    torch = _parse(said) if answered else None
    yield _torch(torch, said)
    yield _cuda(machine, torch)
    yield _grpc(machine)


def _python(machine: Machine) -> Check:
    floor = SUPPORT["python"].floor
    answered, version = machine.ask_python(_ASK_PYTHON)
    fine = answered and at_least(version, floor)
    return required(
        "python", version, f"{floor} or newer", fine, machine.apt("python3.11", "python3.11-venv")
    )


def _parse(said: str) -> _Torch:
    fields = json.loads(said.splitlines()[-1])
    return _Torch(fields["version"], fields["cuda"], tuple(fields["devices"]))


def _torch(torch: _Torch | None, said: str) -> Check:
    floor = SUPPORT["torch"].floor
    fine = torch is not None and at_least(torch.version, floor)
    if torch is None:
        found = "not installed" if "No module named 'torch'" in said else f"import fails: {said}"
    else:
        build = f"CUDA {torch.cuda}" if torch.cuda else "CPU"
        found = f"{torch.version} ({build} build)"
    return required("torch", found, f"{floor} or newer", fine, f"pip install torch=={TORCH_TESTED}")


def _cuda(machine: Machine, torch: _Torch | None) -> Check:
    """Driver and GPUs as nvidia-smi tells them, and whether this torch can use them."""
    needs = "an NVIDIA GPU that torch can use"
    said = machine.run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    rows = [line.rpartition(",") for line in (said or "").splitlines() if "," in line]
    if not rows:
        if machine.read("/proc/driver/nvidia/version"):
            return optional("cuda", "driver loaded, no GPU answers", needs, False, "nvidia-smi -q")
        if _has_nvidia_gpu(machine):
            remedy = machine.apt("nvidia-driver")
            return optional("cuda", "an NVIDIA GPU without a driver", needs, False, remedy)
        return optional("cuda", "none", needs, False, None)
    found = f"{', '.join(name.strip() for name, _, _ in rows)}; driver {rows[0][2].strip()}"
    if torch is None or torch.devices:
        remedy = f"pip install torch=={TORCH_TESTED}"
        return optional("cuda", found, needs, torch is not None, remedy)
    if torch.cuda is None:
        remedy = f"pip install --force-reinstall torch=={TORCH_TESTED}"
        return optional("cuda", f"{found}; torch is a CPU build", needs, False, remedy)
    found = f"{found}; torch's CUDA {torch.cuda} cannot use it"
    return optional("cuda", found, needs, False, machine.apt("--only-upgrade", "nvidia-driver"))


def _has_nvidia_gpu(machine: Machine) -> bool:
    """Whether a PCI display controller (class 0x03) is NVIDIA's (vendor 0x10de)."""
    folder = "/sys/bus/pci/devices"
    return any(
        machine.read(f"{folder}/{device.name}/class").startswith("0x03")
        and machine.read(f"{folder}/{device.name}/vendor") == "0x10de"
        for device in machine.entries(folder)
    )


def _grpc(machine: Machine) -> Check:
    floor = SUPPORT["grpcio"].floor
    answered, said = machine.ask_python(_ASK_GRPC)
    fine = answered and at_least(said, floor)
    remedy = f"pip install 'grpcio>={floor}' 'grpcio-health-checking>={floor}'"
    return required("grpc", said, f"{floor} or newer", fine, remedy)
