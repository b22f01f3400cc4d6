"""Stage 2: entry points can be called: their inputs give every size, their outputs are distinct."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from genie_schemas import ragged, rng
from genie_schemas.args import ArgError, Named, ProgramRef, Ref, decode, walk
from genie_schemas.control import CONTROL, FEATURE
from genie_schemas.errors import GenieError
from genie_schemas.expr import Expr
from genie_schemas.plan import LOOP, STATE, EntryInput, EntryPoint, ExecutionPlan
from genie_schemas.types import parse_type
from genie_schemas.verify._report import problem
from genie_schemas.verify.dataflow import type_of
from genie_schemas.verify.dims import entry_dims
from genie_schemas.versions import at_least

STATE_VERSION = "1.1"
"""The format that brought state, loops, and dimensions that not every entry point uses."""


def check_entries(plan: ExecutionPlan) -> list[GenieError]:
    """Check inputs, outputs and sizes of every entry point, and `requires` and versions."""
    dims = {name: entry_dims(plan, name) for name in plan.entrypoints}
    errors = [*_features(plan), *_version(plan, dims), *_used(plan, dims), *_shared(plan)]
    for name, entry in plan.entrypoints.items():
        path = f"entrypoints.{name}"
        errors += _inputs(plan, entry, path)
        errors += _outputs(plan, entry, path)
        errors += _sizes(dims[name], entry, path)
        errors += _ragged(plan, entry, path)
    return errors


def _version(plan: ExecutionPlan, dims: Mapping[str, frozenset[str]]) -> Iterator[GenieError]:
    """What format 1.0 does not have is refused by its readers, who look at the version alone."""
    news = {
        "state": bool(plan.state),
        "loops": bool(plan.loops),
        "dimensions that only some entry points use": len(set(dims.values())) > 1,
    }
    what = " and ".join(what for what, used in news.items() if used)
    for key in ("format_version", "min_reader"):
        said = getattr(plan, key)
        if what and not at_least(said, STATE_VERSION):
            message = f"the plan has {what}, of format {STATE_VERSION}, and says {said}"
            yield problem("GEN0327", key, message)


def _used(plan: ExecutionPlan, dims: Mapping[str, frozenset[str]]) -> Iterator[GenieError]:
    for name in sorted(set(plan.dims).difference(*dims.values())):
        yield problem("GEN0320", f"dims.{name}", f"no entry point uses the dimension {name!r}")


def _shared(plan: ExecutionPlan) -> Iterator[GenieError]:
    """An input that several entry points take is the same value for each."""
    known: dict[str, EntryInput] = {}
    for entry_name, entry in plan.entrypoints.items():
        for item in entry.inputs:
            other = known.setdefault(item.name, item)
            where = f"entrypoints.{entry_name}.inputs.{item.name}"
            if parse_type(other.type) != parse_type(item.type):
                message = f"{item.name!r} is {item.type} here and {other.type} elsewhere"
                yield problem("GEN0320", where, message)
            if other.device != item.device:
                message = f"{item.name!r} arrives on {item.device} here, elsewhere {other.device}"
                yield problem("GEN0310", where, message)


def _features(plan: ExecutionPlan) -> list[GenieError]:
    """State and loops must be asked for, so that a daemon without them refuses the plan."""
    used = {"compute.aten": bool(plan.programs), STATE: bool(plan.state), LOOP: bool(plan.loops)}
    ops = (op for program in plan.programs.values() for op in program.ops)
    used[rng.FEATURE] = any(rng.KEYWORD in op.kwargs for op in ops)
    used[FEATURE] = any(op.op in CONTROL for p in plan.programs.values() for op in p.ops)
    return [
        problem("GEN0325", "requires", f"the plan uses {feature} and does not require it")
        for feature, wanted in used.items()
        if wanted and feature not in plan.requires
    ]


def _inputs(plan: ExecutionPlan, entry: EntryPoint, path: str) -> Iterator[GenieError]:
    seen: set[str] = set()
    for item in entry.inputs:
        where = f"{path}.inputs.{item.name}"
        if item.name in seen:
            yield problem("GEN0309", where, f"{item.name!r} is defined twice")
        seen.add(item.name)
        value = plan.values.get(item.name)
        if value is None:
            continue
        if parse_type(value.type) != parse_type(item.type):
            message = f"{item.name!r} is {item.type} here and {value.type} in values"
            yield problem("GEN0320", where, message)
        if value.device != item.device:
            message = f"{item.name!r} arrives on {item.device} and is declared on {value.device}"
            yield problem("GEN0310", where, message)


def _outputs(plan: ExecutionPlan, entry: EntryPoint, path: str) -> Iterator[GenieError]:
    seen: set[str] = set()
    for output in entry.outputs:
        where = f"{path}.outputs.{output.name}"
        if output.name in seen:
            yield problem("GEN0309", where, f"two outputs are called {output.name!r}")
        seen.add(output.name)
        try:
            literal = decode(output.literal)
        except ArgError as error:
            yield problem("GEN0307", where, str(error))
            continue
        for leaf in walk(literal):
            if isinstance(leaf, Ref | Named | ProgramRef):
                yield problem("GEN0307", where, "a literal is a number, a text or a list of them")
            elif isinstance(leaf, Expr) and not leaf.names <= set(plan.dims):
                unknown = min(leaf.names - set(plan.dims))
                yield problem("GEN0308", where, f"{leaf.text[:60]}: unknown dimension {unknown!r}")


def _ragged(plan: ExecutionPlan, entry: EntryPoint, path: str) -> Iterator[GenieError]:
    """What tells an output's sizes has one number for each of its dimensions."""
    if ragged.FEATURE not in plan.requires:
        return
    values = {output.name: output.value for output in entry.outputs}
    for name, sizes in ragged.pairs(values).items():
        full, told = type_of(plan, values[name] or ""), type_of(plan, values[sizes] or "")
        rank = None if full is None else len(parse_type(full).shape)
        if rank is None or told is None or str(parse_type(told)) != f"i64[{rank}]":
            message = f"it tells the sizes of {name!r} and is {told}, not i64[{rank}]"
            yield problem("GEN0320", f"{path}.outputs.{sizes}", message)


def _sizes(dims: frozenset[str], entry: EntryPoint, path: str) -> Iterator[GenieError]:
    """The size of a dimension is read off an input that has it as a size of its own."""
    given = {size.text for item in entry.inputs for size in parse_type(item.type).shape}
    for name in sorted(dims - given):
        message = f"no input has a size {name!r}, so that it is unknown when the plan runs"
        yield problem("GEN0320", f"{path}.inputs", message)
