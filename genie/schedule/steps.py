"""Steps: what the runtime does, in an order in which every dependency points backwards.

The order is that of the captured graph, and for what stands at one place of it: load, transfer,
compute, free, return, then by id. Names come from modules and values, never from positions, so
that a changed layer changes its own lines only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from genie.graph.ir import Graph
from genie.schedule.segments import Segment
from genie.schedule.states import Effects
from genie_schemas.names import Namer, clean
from genie_schemas.plan import (
    ComputeStep,
    FreeStep,
    LoadStep,
    Priority,
    ReturnStep,
    Step,
    TransferStep,
)

DRAFT_PROGRAM = "0" * 16
"""Stands for a program's key until emission has built the program."""


@dataclass(frozen=True)
class Schedule:
    """The steps, and for each compute step its segment.

    `moved` maps the name of a value after a transfer to the value; `devices` a value to where it
    lies; `input_devices` each input of the forward to where the client sends it.
    """

    steps: tuple[Step, ...]
    segments: dict[str, Segment]
    moved: dict[str, str]
    devices: dict[str, str]
    input_devices: dict[str, str]


@dataclass(frozen=True)
class Lying:
    """Where things lie that the steps of one entry point do not decide.

    `default` takes what nothing reads; `states` are the devices of states, `inputs` those of inputs
    that a loop makes, each on the device where it is sampled. Such an input is sent to every device
    first: it tells them that a turn begins.
    """

    default: str
    states: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Use:
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def schedule(
    graph: Graph, segments: list[Segment], lying: Lying, priority: Priority = "activation"
) -> Schedule:
    """Order loads, computes, transfers, frees and returns of the segments."""
    return _Scheduler(graph, segments, lying, priority).run()


class _Scheduler:
    def __init__(
        self, graph: Graph, segments: list[Segment], lying: Lying, priority: Priority
    ) -> None:
        self.graph = graph
        self.segments = segments
        self.lying = lying
        self.default = lying.default
        self.priority = priority
        self.effects = Effects(graph)
        self.keys = {c.name: c.key for c in graph.constants}
        self.uses = _uses(graph, segments)
        self.ids = Namer()
        self.where: dict[str, str] = {}
        self.loaded: set[tuple[str, str]] = set()
        self.moved: dict[str, str] = {}
        self.steps: list[Step] = []
        self.by_step: dict[str, Segment] = {}

    def run(self) -> Schedule:
        inputs = self._place_inputs()
        self.where.update(self.lying.states)
        for name in self.lying.inputs:
            for device in sorted({segment.device for segment in self.segments}):
                self._at(name, device)
        for segment, use in zip(self.segments, self.uses, strict=True):
            label = self._label(segment, use)
            self._load(label, segment.device, use.reads)
            reads = tuple(self._at(name, segment.device) for name in use.reads)
            step = self.ids(f"{label}/compute@{segment.device}")
            made = ComputeStep(
                id=step,
                kind="compute",
                device=segment.device,
                program=DRAFT_PROGRAM,
                reads=list(reads),
                writes=list(use.writes),
                priority=self.priority,
            )
            self.steps.append(self.effects.on(made, self.graph.nodes[segment.start : segment.stop]))
            self.by_step[step] = segment
            self.where.update(dict.fromkeys(use.writes, segment.device))
        self._return()
        self._free()
        return Schedule(tuple(self.steps), self.by_step, self.moved, dict(self.where), inputs)

    def _place_inputs(self) -> dict[str, str]:
        """Each input goes to the device of its first reader, unless it is made elsewhere."""
        found = {}
        for item in self.graph.inputs:
            device = self.default
            if item.name in self.lying.inputs:
                found[item.name] = self.where[item.name] = self.lying.inputs[item.name]
                continue
            for segment, use in zip(self.segments, self.uses, strict=True):
                if item.name in use.reads:
                    device = segment.device
                    break
            found[item.name] = self.where[item.name] = device
        return found

    def _label(self, segment: Segment, use: _Use) -> str:
        """The label's path, or for a parent module's own calls the first value they make."""
        prefix = f"{segment.label}." if segment.label else ""
        parent = any(s.label.startswith(prefix) and s.label != segment.label for s in self.segments)
        if parent:
            names = [segment.first, *use.writes]
            if any(names):
                return next(filter(None, names))
        return clean(segment.label) if segment.label else "main"

    def _load(self, label: str, device: str, reads: Iterable[str]) -> None:
        """Load the constants that are not yet on the device, before the step that reads them."""
        keys = [self.keys[name] for name in reads if name in self.keys]
        fresh = [key for key in dict.fromkeys(keys) if (key, device) not in self.loaded]
        if fresh:
            self.loaded.update((key, device) for key in fresh)
            step = self.ids(f"{label}/load@{device}")
            self.steps.append(LoadStep(id=step, kind="load", device=device, reads=fresh))

    def _at(self, name: str, device: str) -> str:
        """The name of a value on a device, after a transfer when it lies elsewhere."""
        if name in self.keys:
            return self.keys[name]
        if self.where[name] == device:
            return name
        moved = f"{name}@{device}"
        if moved not in self.moved:
            source = self.where[name]
            self.moved[moved] = name
            self.where[moved] = device
            self.steps.append(
                TransferStep(
                    id=self.ids(f"{name}/transfer@{source}->{device}"),
                    kind="transfer",
                    src=source,
                    dst=device,
                    reads=[name],
                    writes=[moved],
                    priority=self.priority,
                )
            )
        return moved

    def _return(self) -> None:
        for output in self.graph.outputs:
            if output.value is None:
                continue
            name = self.keys.get(output.value, output.value)
            loaded = sorted(device for key, device in self.loaded if key == name)
            device = self.where.get(name) or next(iter(loaded), self.default)
            step = f"{name}/return@{device}"
            if any(s.id == step for s in self.steps):
                continue
            if output.value in self.keys:
                self._load(name, device, [output.value])
            self.steps.append(
                ReturnStep(
                    id=self.ids(step),
                    kind="return",
                    device=device,
                    reads=[name],
                    priority=self.priority,
                )
            )

    def _free(self) -> None:
        """Free each value after its last reader, unless nothing computes on its device after."""
        lasting = {*self.keys, *self.graph.state_names, *self.effects.news}
        last: dict[str, int] = {}
        final: dict[str, int] = {}
        for i, step in enumerate(self.steps):
            if isinstance(step, LoadStep):
                continue
            last.update(dict.fromkeys(step.reads, i))
            if isinstance(step, ComputeStep):
                final[step.device] = i
                last.update({name: i for name in step.writes if name not in last})
            elif isinstance(step, TransferStep):
                last.update({name: i for name in step.writes if name not in last})
        after: dict[int, dict[str, list[str]]] = {}
        for name, i in last.items():
            device = self.where.get(name)
            if device is not None and name not in lasting and i < final.get(device, -1):
                after.setdefault(i, {}).setdefault(device, []).append(name)
        steps: list[Step] = []
        for i, step in enumerate(self.steps):
            steps.append(step)
            for device, names in sorted(after.get(i, {}).items()):
                label = step.id.partition("/")[0]
                free = self.ids(f"{label}/free@{device}")
                steps.append(FreeStep(id=free, kind="free", device=device, reads=sorted(names)))
        self.steps = steps


def _uses(graph: Graph, segments: list[Segment]) -> list[_Use]:
    """What each segment reads from outside and what others (or the caller) read of it."""
    makers: dict[str, int] = {}
    wanted: list[dict[str, None]] = [{} for _ in segments]
    reads: list[dict[str, None]] = [{} for _ in segments]
    for number, segment in enumerate(segments):
        for node in graph.nodes[segment.start : segment.stop]:
            for name in node.reads():
                maker = makers.get(name)
                if maker != number:
                    reads[number][name] = None
                    if maker is not None:
                        wanted[maker][name] = None
            makers.update(dict.fromkeys(node.writes(), number))
    for output in graph.kept():
        if output.value is not None and output.value in makers:
            wanted[makers[output.value]][output.value] = None
    uses = []
    for number, segment in enumerate(segments):
        made = [
            name
            for node in graph.nodes[segment.start : segment.stop]
            for name in node.writes()
            if name in wanted[number]
        ]
        uses.append(_Use(tuple(reads[number]), tuple(made)))
    return uses
