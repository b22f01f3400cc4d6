"""What the golden tests share: the examples compiled once a process, and a plain executor."""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genie.driver import Work, compile_model
from genie.model.loader import load_weights
from genie_schemas import args, writer
from genie_schemas.constants import ConstantFiles
from genie_schemas.expr import Expr
from genie_schemas.plan import ComputeStep, ExecutionPlan, FreeStep, LoadStep, Program, TransferStep
from genie_schemas.spec import Spec
from genie_schemas.types import DTYPES, TensorType, parse_type

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "golden"
SPECS = {p.stem: p for end in ("*/*.yaml", "*/*.toml") for p in sorted((ROOT / "plans").glob(end))}
LARGE = ("bert", "bert-two", "clip", "clip-two", "masked-lm-two", "resnet18", "resnet18-two", "vit")


@dataclass(frozen=True)
class Compiled:
    """One example's plan, its file's text, and the folder that holds its constants."""

    work: Work
    plan: ExecutionPlan
    text: str
    folder: Path

    @property
    def spec(self) -> Spec:
        assert self.work.spec is not None
        return self.work.spec.spec


_FOLDER = tempfile.TemporaryDirectory(prefix="genie-golden-")


@functools.cache
def compiled(name: str) -> Compiled:
    path = SPECS[name]
    out = Path(_FOLDER.name) / f"{name}.plan.json"
    work, written = compile_model(path.parent / "model.py", path, out)
    assert work.plan is not None
    assert written is not None
    return Compiled(work, work.plan, out.read_text(encoding="utf-8"), out.parent)


def eager(made: Compiled) -> nn.Module:
    """The example's own module, with the weights that its spec names."""
    folder = SPECS[made.spec.name].parent
    model: nn.Module = importlib.import_module(f"plans.{folder.name}.model").build(
        **made.spec.model.args
    )
    if made.spec.model.weights is not None:
        load_weights(model, folder / made.spec.model.weights)
    return model


# -- a reference executor: no slots, no arenas, no processes ------------------------------------


def execute(plan: ExecutionPlan, folder: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run `forward` step by step with plain torch; returns the outputs that are values by name.

    Every device has a memory of its own here: reading what no transfer brought is a KeyError.
    """
    entry = plan.entrypoints["forward"]
    dims = _dims(entry.inputs, inputs)
    memory: dict[tuple[str, str], Tensor] = {
        (i.device, i.name): inputs[i.name] for i in entry.inputs
    }
    returned: dict[str, Tensor] = {}
    steps = {step.id: step for step in plan.steps}
    with ConstantFiles(folder) as files, torch.no_grad():
        for step in (steps[i] for i in entry.steps):
            if isinstance(step, LoadStep):
                for name in step.reads:
                    memory[step.device, name] = _constant(plan, files, name)
            elif isinstance(step, ComputeStep):
                given = [memory[step.device, name] for name in step.reads]
                before = [t.clone() for t in given]
                made = _run(plan.programs[step.program], given, dims)
                assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True)), (
                    f"{step.id} changes what it reads"
                )
                for name, tensor in zip(step.writes, made, strict=True):
                    memory[step.device, name] = _declared(plan.values[name].type, tensor, dims)
            elif isinstance(step, TransferStep):
                memory[step.dst, step.writes[0]] = memory[step.src, step.reads[0]].clone()
            elif isinstance(step, FreeStep):
                for name in step.reads:
                    del memory[step.device, name]
            else:
                returned[step.reads[0]] = memory[step.device, step.reads[0]]
    return {o.name: returned[o.value] for o in entry.outputs if o.value is not None}


def _dims(declared: list[Any], inputs: Mapping[str, Tensor]) -> dict[str, int]:
    dims: dict[str, int] = {}
    for item in declared:
        for size, actual in zip(parse_type(item.type).shape, inputs[item.name].shape, strict=True):
            if size.names:
                dims[size.text] = actual
    return dims


def _constant(plan: ExecutionPlan, files: ConstantFiles, name: str) -> Tensor:
    constant = plan.constants[name]
    kind = parse_type(constant.type)
    flat = torch.frombuffer(bytearray(files.view(constant.source)), dtype=_dtype(kind.dtype))
    return flat.as_strided(kind.sizes({}), kind.strides({})).clone()


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, DTYPES[name][0])
    return found


def _declared(text: str, tensor: Tensor, dims: Mapping[str, int]) -> Tensor:
    """The tensor, dense in the stride order of its type, which must be its own type."""
    kind: TensorType = parse_type(text)
    assert (tuple(tensor.shape), tensor.dtype) == (kind.sizes(dims), _dtype(kind.dtype)), text
    dense = torch.empty_strided(kind.sizes(dims), kind.strides(dims), dtype=tensor.dtype)
    return dense.copy_(tensor)


def _run(program: Program, given: list[Tensor], dims: Mapping[str, int]) -> list[Tensor]:
    names = dict(zip((v.name for v in program.inputs), given, strict=True))

    def value(arg: args.Arg) -> Any:
        match arg:
            case args.Ref(name):
                return names[name]
            case args.Named("dtype", name):
                return _dtype(name)
            case args.Named("device", _):
                return torch.device("cpu")
            case args.Named(_, name):
                return getattr(torch, name)
            case Expr():
                return arg.evaluate(dims)
            case tuple():
                return [value(item) for item in arg]
        return arg

    for op in program.ops:
        function: Callable[..., Any] = functools.reduce(getattr, op.op.split("."), torch.ops)
        result = function(
            *(value(args.decode(a)) for a in op.args),
            **{k: value(args.decode(a)) for k, a in op.kwargs.items()},
        )
        results = result if isinstance(result, tuple | list) else [result]
        for name, tensor in zip(op.out, results, strict=False):
            if name is not None:
                names[name] = tensor
    return [names[v.name] for v in program.outputs]


def plan_text(plan: ExecutionPlan) -> str:
    return writer.dumps(plan)
