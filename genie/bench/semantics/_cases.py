"""The workloads: a model, a spec for one device and one for two, and inputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from genie.client.link import LoadedPlan
from genie.client.session import load_plan
from genie.driver import compile_model
from genie.model.loader import load_model
from genie.spec import load_spec
from genie.testing.inputs import sample_inputs
from genie_schemas.constants import ConstantFiles
from genie_schemas.plan import ExecutionPlan
from genie_schemas.types import DTYPES, parse_type

__all__ = ["FORWARDS", "Case", "Constants", "Model"]

MODELS = Path(__file__).parent / "models"

FORWARDS = ("vision", "multimodal", "recsys")
"""Workloads whose entry point is `forward`."""


@dataclass(frozen=True)
class Case:
    """A workload on `devices` devices (1 or 2), compiled into `folder`."""

    name: str
    devices: int
    plan: LoadedPlan

    @property
    def label(self) -> str:
        """The name of its rows: those of two devices have the workload's own."""
        return self.name if self.devices == 2 else f"{self.name}/one-device"

    @staticmethod
    def compile(name: str, devices: int, folder: Path) -> Case:
        """Compile the workload as `genie compile` does."""
        spec = MODELS / f"{name}-{'two' if devices == 2 else 'one'}.yaml"
        out = folder / f"{spec.stem}.plan.json"
        compile_model(MODELS / f"{name}.py", spec, out)
        return Case(name, devices, load_plan(out))

    def named(self, name: str) -> Case:
        """The same plan as the workload `name`."""
        return dataclasses.replace(self, name=name)


class Model:
    """The model itself, for local runs, and inputs for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = MODELS / f"{name}.py"
        self.spec = load_spec(MODELS / f"{name}-one.yaml", {}).spec
        self.module: nn.Module = load_model(path, path.name, self.spec, None)

    def inputs(self) -> dict[str, torch.Tensor]:
        """One request."""
        sizes = {name: dim.example for name, dim in self.spec.dims.items()}
        return {n: torch.from_numpy(a) for n, a in sample_inputs(self.spec, sizes).items()}


class Constants:
    """A plan's constants as tensors, from the file beside it; each is read once."""

    def __init__(self, plan: LoadedPlan) -> None:
        self._plan: ExecutionPlan = plan.installed.plan
        self._folder = plan.folder
        self._read: dict[str, torch.Tensor] = {}

    def __call__(self, name: str) -> torch.Tensor:
        """A constant by name."""
        if name not in self._read:
            with ConstantFiles(self._folder) as files:
                self._read[name] = _tensor(self._plan, files, name)
        return self._read[name]


def _tensor(plan: ExecutionPlan, files: ConstantFiles, name: str) -> torch.Tensor:
    constant = plan.constants[name]
    kind = parse_type(constant.type)
    dtype = getattr(torch, DTYPES[kind.dtype][0])
    sizes, strides = kind.sizes({}), kind.strides({})
    flat = torch.frombuffer(bytearray(files.view(constant.source)), dtype=dtype)
    return flat.as_strided(sizes, strides).clone()
