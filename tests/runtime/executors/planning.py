"""Small real plans, built by hand, and what runs them in the tests of executors."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from genie_runtime.pool import ArenaPool
from genie_runtime.ports import (
    ExecutorPort,
    Failed,
    Finished,
    Ready,
    Region,
    RunEvent,
    RunRequest,
    RunStats,
)
from genie_schemas import optable, writer
from genie_schemas.errors import GenieError
from genie_schemas.plan import ExecutionPlan
from genie_schemas.types import FROM_TORCH, parse_type
from genie_schemas.verify import peak_bytes, verify

WAIT = 60.0


@dataclass
class Book:
    """A plan in the making. `programs` maps a label to a program's JSON values."""

    name: str
    dims: dict[str, tuple[int, int]] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=lambda: {"d0": "any"})
    inputs: list[tuple[str, str, str]] = field(default_factory=list)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    programs: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    timeout_ms: int = 60_000

    def program(self, label: str, inputs: str, outputs: str, scratch: str, *ops: Op) -> None:
        """Add a program; inputs and outputs as "x: f32[2], y: f32[3]"."""
        self.programs[label] = {
            "inputs": _values(inputs),
            "outputs": _values(outputs),
            "scratch_bytes": scratch,
            "ops": [op.data() for op in ops],
        }

    def compute(self, step: str, program: str, reads: str, writes: str, device: str = "d0") -> None:
        """Add a compute step."""
        self.steps.append(
            {
                "id": step,
                "kind": "compute",
                "device": device,
                "program": program,
                "reads": reads.split(),
                "writes": writes.split(),
            }
        )

    def step(self, step: str, kind: str, reads: str, **more: Any) -> None:
        """Add any other step."""
        device = {} if kind == "transfer" else {"device": more.pop("device", "d0")}
        self.steps.append({"id": step, "kind": kind, "reads": reads.split(), **device, **more})

    def plan(self, *, check: bool = True, **changes: Any) -> ExecutionPlan:
        """The plan, with its digests and peaks; verified unless `check` is false."""
        keys = {label: writer.program_key(data) for label, data in self.programs.items()}
        types = self._types()
        data = {
            "format": "genie.execution_plan",
            "format_version": "1.0",
            "min_reader": "1.0",
            "plan_digest": "sha256:" + "0" * 64,
            "name": self.name,
            "requires": ["compute.aten"],
            "opset": {"torch": optable.captured_torch(), "schemas": self._schemas()},
            "provenance": {
                **dict.fromkeys(("spec", "graph", "weights"), "sha256:" + "0" * 64),
                "compiler": "test",
                "passes": [],
            },
            "dims": {n: {"min": low, "max": high} for n, (low, high) in self.dims.items()},
            "devices": {n: {"kind": kind, "needs": 0} for n, kind in self.devices.items()},
            "links": {},
            "entrypoints": {
                "forward": {
                    "inputs": [
                        {"name": n, "type": text, "device": d} for n, text, d in self.inputs
                    ],
                    "outputs": [{"name": n, "value": n} for n in self.outputs],
                    "steps": [step["id"] for step in self.steps],
                }
            },
            "constants": {n: _constant(n, t) for n, t in self.constants.items()},
            "state": {},
            "programs": {keys[label]: value for label, value in self.programs.items()},
            "values": {
                name: {"type": text, "bytes": parse_type(text).bytes_text(), "device": device}
                for name, (text, device) in types.items()
            },
            "policies": {
                "default": {
                    "max_attempts": 1,
                    "timeout_ms": self.timeout_ms,
                    "backoff_ms": 0,
                    "retry_on": [],
                }
            },
            "steps": [
                step | ({"program": keys[step["program"]]} if "program" in step else {})
                for step in self.steps
            ],
            "loops": {},
            "advisory": {},
            **changes,
        }
        plan = ExecutionPlan.model_validate(data)
        if check:
            peaks = peak_bytes(plan)
            devices = {n: d.model_copy(update={"needs": peaks[n]}) for n, d in plan.devices.items()}
            plan = plan.model_copy(update={"devices": devices})
        digest = writer.plan_digest(writer.plan_data(plan))
        plan = plan.model_copy(update={"plan_digest": digest})
        if check:
            verify(plan)
        return plan

    def _schemas(self) -> dict[str, str]:
        used = sorted({op["op"] for p in self.programs.values() for op in p["ops"]})
        return {n: info.schema for n in used if (info := optable.lookup(n)) is not None}

    def _types(self) -> dict[str, tuple[str, str]]:
        types: dict[str, tuple[str, str]] = {}
        known = {n: text for n, text, _ in self.inputs}
        for step in self.steps:
            if step["kind"] == "compute":
                for name, value in zip(
                    step["writes"], self.programs[step["program"]]["outputs"], strict=True
                ):
                    types[name] = (value["type"], step["device"])
            elif step["kind"] == "transfer":
                source = step["reads"][0]
                text = types[source][0] if source in types else known[source]
                types[step["writes"][0]] = (text, step["dst"])
        return types


@dataclass
class Op:
    """One op, its arguments as `r("x")`, ints, lists, or tagged values."""

    op: str
    out: str
    args: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        out = [None if name == "-" else name for name in self.out.split()]
        entry: dict[str, Any] = {"out": out, "op": f"aten.{self.op}", "args": self.args}
        return entry | ({"kwargs": self.kwargs} if self.kwargs else {})


def op(out: str, name: str, *args: Any, **kwargs: Any) -> Op:
    """`out = aten.<name>(*args, **kwargs)`; the outs separated by blanks, "-" for none."""
    return Op(name, out, list(args), kwargs)


def r(name: str) -> dict[str, str]:
    """A reference to a value."""
    return {"v": name}


def e(text: str) -> dict[str, str]:
    """An expression over dimensions."""
    return {"e": text}


def _values(text: str) -> list[dict[str, str]]:
    parts = [part for part in text.replace("; ", ";").split(";") if part]
    return [dict(zip(("name", "type"), part.split(": "), strict=True)) for part in parts]


def type_text(tensor: torch.Tensor) -> str:
    """The type of a row-major tensor."""
    dtype = FROM_TORCH[str(tensor.dtype).removeprefix("torch.")]
    return f"{dtype}[{','.join(map(str, tensor.shape))}]"


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of a dense tensor as they lie."""
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().tobytes()


def _constant(name: str, tensor: torch.Tensor) -> dict[str, Any]:
    data = raw(tensor)
    return {
        "type": type_text(tensor),
        "digest": "blake3:" + hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "source": f"test.safetensors#{name}",
    }


class Listener:
    """Collects a run's events."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()

    def __call__(self, event: RunEvent) -> None:
        self.events.put(event)

    def ready(self, step: str, timeout: float = WAIT) -> None:
        event = self.events.get(timeout=timeout)
        assert event == Ready(step), event

    def finished(self, timeout: float = WAIT) -> RunStats:
        event = self.events.get(timeout=timeout)
        assert isinstance(event, Finished), event
        assert self.events.empty()
        return event.stats

    def failed(self, code: str, timeout: float = WAIT) -> Failed:
        event = self.events.get(timeout=timeout)
        assert isinstance(event, Failed), event
        assert event.error.code == code, str(event.error)
        return event


class Rig:
    """An executor, a pool that it maps, and plans installed with their constants loaded."""

    def __init__(self, executor: ExecutorPort) -> None:
        self.executor = executor
        self.pool = ArenaPool(
            1 << 28, arena_bytes=1 << 20, opened=executor.map_arena, closed=executor.unmap_arena
        )
        self._runs = 0

    def put(self, tensor: torch.Tensor) -> Region:
        """A region with the tensor's bytes."""
        data = raw(tensor)
        region = self.pool.allocate(len(data))
        self.pool.view(region)[:] = data
        return region

    def get(self, region: Region, text: str, dims: Mapping[str, int]) -> torch.Tensor:
        """A copy of the value in a region."""
        kind = parse_type(text)
        data = bytearray(self.pool.view(region))
        dtype = getattr(torch, {v: k for k, v in FROM_TORCH.items()}[kind.dtype])
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat.as_strided(kind.sizes(dims), kind.strides(dims))

    def install(self, plan: ExecutionPlan, book: Book, devices: Sequence[str] = ("d0",)) -> None:
        """Install and load on this executor."""
        for device in devices:
            self.executor.install(writer.dumps(plan), plan.plan_digest, device)
        regions = {name: self.put(tensor) for name, tensor in book.constants.items()}
        self.executor.load(plan.plan_digest, regions)

    def request(
        self,
        plan: ExecutionPlan,
        device: str,
        dims: Mapping[str, int],
        inputs: Mapping[str, torch.Tensor],
        **more: Any,
    ) -> RunRequest:
        """A request whose regions this rig has allocated."""
        self._runs += 1
        mine = {s.id: s for s in plan.steps}
        forms: dict[str, dict[str, Region]] = {"incoming": {}, "outgoing": {}, "outputs": {}}
        for step in mine.values():
            if step.kind == "transfer" and device in (step.src, step.dst):
                part = "outgoing" if step.src == device else "incoming"
                forms[part][step.id] = self._region(plan, step.writes[0], dims)
            elif step.kind == "return" and step.device == device:
                forms["outputs"][step.reads[0]] = self._region(plan, step.reads[0], dims)
        here = {i.name for i in plan.entrypoints["forward"].inputs if i.device == device}
        request = RunRequest(
            run_key=f"run-{self._runs}",
            attempt=1,
            plan_digest=plan.plan_digest,
            entrypoint="forward",
            device=device,
            dims=dims,
            inputs={n: self.put(t) for n, t in inputs.items() if n in here},
            **forms,
        )
        return replace(request, **more)

    def _region(self, plan: ExecutionPlan, name: str, dims: Mapping[str, int]) -> Region:
        return self.pool.allocate(parse_type(text_of(plan, name)).nbytes(dims))

    def run(
        self,
        plan: ExecutionPlan,
        inputs: Mapping[str, torch.Tensor],
        dims: Mapping[str, int] | None = None,
        device: str = "d0",
    ) -> tuple[dict[str, torch.Tensor], RunStats]:
        """Run a plan of one device to its end."""
        request = self.request(plan, device, dims or {}, inputs)
        listener = Listener()
        self.executor.run(request, listener)
        stats = listener.finished()
        return self.results(plan, request), stats

    def refused(self, request: RunRequest, code: str) -> GenieError:
        """Run a request that must fail, not to be retried."""
        listener = Listener()
        self.executor.run(request, listener)
        event = listener.failed(code)
        assert not event.retryable
        return event.error

    def results(self, plan: ExecutionPlan, request: RunRequest) -> dict[str, torch.Tensor]:
        """What lies in the output regions."""
        return {
            name: self.get(region, text_of(plan, name), request.dims)
            for name, region in request.outputs.items()
        }


def text_of(plan: ExecutionPlan, name: str) -> str:
    """The type text of a value, constant or input."""
    for table in (plan.values, plan.constants, plan.state):
        if name in table:
            return table[name].type
    return next(i.type for i in plan.entrypoints["forward"].inputs if i.name == name)
