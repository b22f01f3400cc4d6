"""Compiling modules in this process, and comparing their plans with eager execution."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from genie import driver
from genie.capture.capture import capture
from genie.capture.entries import capture_entries
from genie.capture.exporter import export
from genie.capture.store import save
from genie.graph import check as legal
from genie.graph.entries import FORWARD, Entries, entries_data, entries_from
from genie.plan.emit import Emitted, emit
from genie.schedule import Lying, Scheduled, cut, schedule
from genie.spec import LoadedSpec
from genie_schemas import writer
from genie_schemas.plan import ExecutionPlan
from genie_schemas.reader import read_plan
from genie_schemas.spec import Device, Spec
from genie_schemas.verify import verify
from tests.capture.reference import Interpreter, same_bits

Shape = Sequence[int | str]
InputOf = tuple[str, Shape]


def spec_of(
    inputs: Mapping[str, Any],
    dims: Mapping[str, tuple[int, int]] | None = None,
    stages: Sequence[tuple[str, Sequence[str]]] | None = None,
    **more: Any,
) -> Spec:
    """A spec. An input is (dtype, shape) or a mapping; `dims` default to 1..8 for those named."""
    data: dict[str, Any] = {"genie": 1, "name": "net", **more}
    data["inputs"] = {
        name: item if isinstance(item, dict) else {"dtype": item[0], "shape": list(item[1])}
        for name, item in inputs.items()
    }
    names = {s for item in data["inputs"].values() for s in item["shape"] if isinstance(s, str)}
    ranges = dict.fromkeys(sorted(names), (1, 8)) | dict(dims or {})
    if ranges:
        data["dims"] = {n: {"min": low, "max": high} for n, (low, high) in ranges.items()}
    if stages is not None:
        data["devices"] = [{"id": d, "kind": "cpu"} for d in dict.fromkeys(d for d, _ in stages)]
        data["placement"] = {"stages": [{"device": d, "modules": list(m)} for d, m in stages]}
    return Spec.model_validate(data)


@dataclass(frozen=True)
class Compiled:
    """A module and its plan, read back from the text that would be in the file."""

    model: nn.Module
    spec: Spec
    work: driver.Work
    plan: ExecutionPlan
    folder: Path

    @property
    def text(self) -> str:
        return writer.dumps(self.plan)

    @property
    def ops(self) -> list[str]:
        return [op.op for program in self.plan.programs.values() for op in program.ops]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the reference interpreter makes of the plan; the caller keeps its tensors."""
        return Interpreter(self.plan, self.folder).run(inputs)


def compile_module(
    model: nn.Module, spec: Spec, folder: Path | None = None, path: Path = Path(__file__)
) -> Compiled:
    """Every stage of the driver, with the one that needs a child process in this one."""
    where = folder or Path(tempfile.mkdtemp(prefix="genie-test-"))
    request = driver.Request(path, Path("net.yaml"), {}, where)
    if spec.infers_inputs:
        entries, tensors = capture_entries(model, spec, path, path.name, "net.yaml")
    else:
        program = export(model, spec, path, path.name)
        captured = capture(model, program, spec, path.name, lambda node: None)
        entries, tensors = Entries({FORWARD: captured.graph}), captured.tensors
    constants = where / "constants.safetensors"
    save(tensors, constants)
    work = driver.Work(
        request,
        spec=LoadedSpec(Path("net.yaml"), spec, "0" * 64, None),
        entries=entries_from(entries_data(entries)),
        constants=constants,
    )
    for name, stage in driver.STAGES:
        if name == "capture":
            for graph in entries.graphs.values():
                legal(graph, "capture")
        elif name != "spec":
            work = stage(work)
    assert work.plan is not None
    plan = read_plan(writer.dumps(work.plan))
    assert plan == work.plan
    verify(plan)
    for constant in plan.constants.values():
        target = where / constant.source.partition("#")[0]
        if not target.exists():
            constants.rename(target)
    return Compiled(model, spec, work, plan, where)


def replanned(compiled: Compiled, regions: Sequence[str], devices: Sequence[str]) -> Compiled:
    """The same graph planned with another region and device for each of its nodes."""
    work = compiled.work
    assert work.graph is not None
    graph, segments, _ = cut(work.graph, list(regions), tuple(devices))
    legal(graph, "schedule")
    used = sorted({*devices, "d0"})
    spec = compiled.spec.model_copy(
        update={"devices": tuple(Device(id=name, kind="cpu") for name in used)}
    )
    sources = {c.source.partition("#")[0] for c in compiled.plan.constants.values()}
    facts = Emitted(
        spec=spec,
        spec_digest="sha256:" + "0" * 64,
        passes=(),
        semantics={},
        constants_file=min(sources, default="none.safetensors"),
    )
    steps = schedule(graph, segments, Lying("d0"))
    plan = emit(Scheduled(Entries({FORWARD: graph}), {FORWARD: steps}), facts)
    plan = read_plan(writer.dumps(plan))
    verify(plan)
    return dataclasses.replace(compiled, plan=plan, spec=spec)


def example(spec: Spec, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Tensor]:
    """Random inputs at these dimension sizes."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, item in spec.inputs.items():
        shape = [sizes[s] if isinstance(s, str) else s for s in item.shape]
        dtype = getattr(torch, item.dtype)
        bounds = item.example_bounds
        if item.dtype == "bool":
            made[name] = torch.rand(shape, generator=generator) < 0.7
        elif bounds is not None:
            low, high = bounds
            made[name] = torch.randint(low, max(high, low + 1), shape, generator=generator).to(
                dtype
            )
        else:
            made[name] = torch.randn(shape, generator=generator).to(dtype)
    return made


def eager(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Any]:
    """The leaves that the module returns, None left out, on copies of the inputs."""
    import inspect

    # matmul of three dimensions folds differently when a weight requires a gradient.
    model.requires_grad_(False)
    given = {name: tensor.clone() for name, tensor in inputs.items()}
    parameters = inspect.signature(model.forward).parameters
    first = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY and n in given]
    with torch.no_grad():
        found = model(*[given.pop(n) for n in first], **given)
    leaves = [leaf for leaf in pytree.tree_leaves(found) if leaf is not None]
    return [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def assert_equals_eager(
    compiled: Compiled, *sizes: Mapping[str, int], model: nn.Module | None = None
) -> None:
    """The plan gives eager's bits at each of the sizes (default: least, middle and greatest)."""
    spec = compiled.spec
    low = {n: d.min for n, d in spec.dims.items()}
    high = {n: d.max for n, d in spec.dims.items()}
    odd = {n: min(d.min + 2, d.max) for n, d in spec.dims.items()}
    for i, size in enumerate(sizes or (low, odd, high)):
        inputs = example(spec, size, i)
        found = compiled.run(inputs)
        expected = eager(model or compiled.model, inputs)
        assert len(found) == len(expected), (list(found), len(expected))
        for (name, value), wanted in zip(found.items(), expected, strict=True):
            if isinstance(wanted, Tensor):
                assert isinstance(value, Tensor), (name, value)
                assert value.dtype == wanted.dtype
                assert value.shape == wanted.shape
                assert same_bits(value, wanted), (name, dict(size), value, wanted)
            else:
                assert value == wanted, (name, value, wanted)


def check(
    model: nn.Module,
    inputs: Mapping[str, Any],
    dims: Mapping[str, tuple[int, int]] | None = None,
    stages: Sequence[tuple[str, Sequence[str]]] | None = None,
    **more: Any,
) -> Compiled:
    """Compile in evaluation mode and compare with eager; returns what was compiled."""
    compiled = compile_module(model.eval(), spec_of(inputs, dims, stages, **more))
    assert_equals_eager(compiled)
    return compiled


def with_forward(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A module with these submodules, parameters and buffers (tensors), and this forward."""
    model = nn.Module()
    for name, part in parts.items():
        if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
            model.register_buffer(name, part)
        else:
            setattr(model, name, part)
    made = type("Made", (nn.Module,), {"forward": forward})
    model.__class__ = made
    return model


__all__ = [
    "Compiled",
    "assert_equals_eager",
    "check",
    "compile_module",
    "eager",
    "example",
    "replanned",
    "spec_of",
    "with_forward",
]
