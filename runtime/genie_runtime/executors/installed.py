"""A plan on an executor: its compiled programs, its constants, and the schedules made of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from genie_runtime.executors import slots
from genie_runtime.executors.building import build_schedule
from genie_runtime.executors.generate import LoopSchedule, build_loop
from genie_runtime.executors.schedule import Form, Schedule
from genie_runtime.executors.state import initial
from genie_runtime.ports import RunRequest
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import ComputeStep, ExecutionPlan

__all__ = ["Installed"]

_KEPT_SCHEDULES = 64


@dataclass
class Installed:
    """An installed plan. `devices` are those of the plan that this executor stands for.

    `lock` guards `constants` and `schedules`; the executor's own lock the rest.
    """

    plan: ExecutionPlan
    lock: threading.Lock = field(default_factory=threading.Lock)
    devices: set[str] = field(default_factory=set)
    programs: dict[str, slots.SlotProgram] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    _schedules: OrderedDict[tuple[object, ...], Schedule | LoopSchedule] = field(
        default_factory=OrderedDict
    )

    def compile(self, plan_device: str, device: torch.device) -> dict[str, slots.SlotProgram]:
        """The programs that `plan_device` runs and that are not compiled yet; GEN0456 to 0458."""
        used = {
            step.program
            for step in self.plan.steps
            if isinstance(step, ComputeStep) and step.device == plan_device
        }
        compiled = {}
        for key in sorted(used - set(self.programs)):
            program = self.plan.programs[key]
            try:
                compiled[key] = slots.compile_program(program, device, self.plan.programs)
            except GenieError as error:
                if error.place is not None:
                    error.place = Place(path=f"programs.{key}.{error.place.path}")
                raise
        return compiled

    def add_constants(self, loaded: dict[str, torch.Tensor]) -> None:
        """Take constants; schedules are made anew, since they hold the old ones."""
        with self.lock:
            self.constants |= loaded
            self._schedules.clear()

    def initial(self, forms: Mapping[str, Form], device: torch.device) -> dict[str, torch.Tensor]:
        """State as it begins. Raises GenieError GEN0455 for a constant that is not loaded."""
        given = {}
        for name in forms:
            constant = self.plan.state[name].initial
            if constant == "zeros":
                continue
            if constant not in self.constants:
                raise GenieError(
                    "GEN0455",
                    f"the constant {constant!r} is not loaded",
                    Place(path=f"state.{name}"),
                    remedy="load the plan's constants, then run again",
                )
            given[name] = self.constants[constant]
        return initial(forms, given, device)

    def schedule(self, request: RunRequest) -> Schedule | LoopSchedule:
        """What the request's device does in its entry point or loop; see `build_schedule`."""
        dims = tuple(request.dims.get(name) for name in self.plan.dims)
        key = (request.device, request.entrypoint, dims)
        with self.lock:
            schedule = self._schedules.get(key)
            if schedule is None:
                build = build_loop if request.entrypoint in self.plan.loops else build_schedule
                schedule = self._schedules[key] = build(
                    self.plan,
                    request.device,
                    request.entrypoint,
                    request.dims,
                    self.programs,
                    self.constants,
                )
                if len(self._schedules) > _KEPT_SCHEDULES:
                    self._schedules.popitem(last=False)
            else:
                self._schedules.move_to_end(key)
            return schedule
