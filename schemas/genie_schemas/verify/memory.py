"""Stage 5: the peak of every device at the largest sizes, and whether the plan says the same.

What counts on a device: constants resident on it; inputs, incoming and outgoing transfers and
returned outputs, whose buffers admission reserves for the whole run (incoming ones until freed);
values until their free step; and the scratch of the one program that runs.
"""

from __future__ import annotations

from collections import defaultdict

from genie_schemas.errors import GenieError
from genie_schemas.expr import ExprError, parse
from genie_schemas.plan import (
    ComputeStep,
    EntryPoint,
    ExecutionPlan,
    FreeStep,
    LoadStep,
    ReturnStep,
    Step,
    TransferStep,
)
from genie_schemas.types import parse_type
from genie_schemas.verify._report import problem
from genie_schemas.verify.dataflow import type_of


def check_memory(plan: ExecutionPlan) -> list[GenieError]:
    """Compare `needs` with the computed peaks, and with each device's own limit."""
    errors = []
    try:
        peaks = peak_bytes(plan)
    except ExprError as error:
        return [problem("GEN0320", "values", f"a size has no bound: {error}")]
    for name, device in plan.devices.items():
        if device.needs != peaks[name]:
            message = f"the steps need {peaks[name]} bytes on {name}, not {device.needs}"
            errors.append(problem("GEN0311", f"devices.{name}.needs", message))
        if device.memory_bytes is not None and device.memory_bytes < peaks[name]:
            errors.append(
                GenieError(
                    "GEN0324",
                    f"the plan needs {peaks[name]} bytes on {name}, "
                    f"which has {device.memory_bytes}",
                    problem("GEN0324", f"devices.{name}", "").place,
                    "the peak at the largest sizes of the dimensions",
                    "give the device more memory, lower the dimensions' maxima, or spread the "
                    "model over more devices",
                )
            )
    return errors


def peak_bytes(plan: ExecutionPlan) -> dict[str, int]:
    """Device → the most bytes that any entry point holds on it at the largest sizes.

    Raises ExprError when a size has no finite bound.
    """
    position = {step.id: step for step in plan.steps}
    peaks = dict.fromkeys(plan.devices, 0)
    for entry in plan.entrypoints.values():
        steps = [position[i] for i in entry.steps if i in position]
        for name, peak in _entry_peaks(plan, entry, steps).items():
            peaks[name] = max(peaks[name], peak)
    return peaks


def _entry_peaks(plan: ExecutionPlan, entry: EntryPoint, steps: list[Step]) -> dict[str, int]:
    ranges = plan.ranges()

    def size(name: str) -> int:
        text = type_of(plan, name)
        return max(0, parse(parse_type(text).bytes_text()).bounds(ranges)[1]) if text else 0

    live: dict[str, int] = defaultdict(int)
    for state_name, state in plan.state.items():
        live[state.device] += size(state_name)
    for item in entry.inputs:
        live[item.device] += size(item.name)
    resident: set[tuple[str, str]] = set()
    for step in steps:
        match step:
            case LoadStep():
                for name in step.reads:
                    if (name, step.device) not in resident:
                        resident.add((name, step.device))
                        live[step.device] += size(name)
            case TransferStep():
                live[step.src] += size(step.reads[0])
                live[step.dst] += size(step.writes[0])
            case ReturnStep():
                live[step.device] += size(step.reads[0])
    peaks = dict(live)
    for step in steps:
        if isinstance(step, ComputeStep):
            program = plan.programs[step.program]
            scratch = max(0, parse(program.scratch_bytes).bounds(ranges)[1])
            written = sum(size(name) for name in step.writes)
            most = live[step.device] + max(scratch, written)
            peaks[step.device] = max(peaks.get(step.device, 0), most)
            live[step.device] += written
        elif isinstance(step, FreeStep):
            live[step.device] -= sum(size(name) for name in step.reads)
    return peaks
