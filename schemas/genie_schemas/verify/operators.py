"""Stage 4: programs hold allowed operators, called as their schemas say, in single assignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from genie_schemas import args, optable, rng
from genie_schemas.control import CONTROL
from genie_schemas.errors import GenieError
from genie_schemas.expr import Expr
from genie_schemas.plan import ComputeStep, ExecutionPlan, Op, Program
from genie_schemas.verify import control
from genie_schemas.verify._report import problem


def check_programs(plan: ExecutionPlan) -> list[GenieError]:
    """Check every program; also that `opset` names each overload used with the table's hash."""
    errors: list[GenieError] = []
    used: set[str] = set()
    appended = _appended(plan)
    for key, program in plan.programs.items():
        own = appended.get(key, frozenset())
        errors += _Program(plan, f"programs.{key}", program, own).check()
        used.update(op.op for op in program.ops if op.op not in CONTROL)
    for key in control.too_deep(plan):
        errors.append(problem("GEN0314", f"programs.{key}", "programs call programs too deeply"))
    for name in sorted(used - set(plan.opset.schemas)):
        errors.append(problem("GEN0306", "opset.schemas", f"the used operator {name} is not in it"))
    for name in sorted(set(plan.opset.schemas) - used):
        errors.append(problem("GEN0306", "opset.schemas", f"{name} is in it but never used"))
    return errors


def _appended(plan: ExecutionPlan) -> dict[str, frozenset[str]]:
    """Program → its inputs that are, at every call, state that the calling step appends to."""
    found: dict[str, frozenset[str]] = {}
    for step in plan.steps:
        if not isinstance(step, ComputeStep) or step.program not in plan.programs:
            continue
        states = {e.state for e in step.effects() if plan.state[e.state].update == "append"}
        formals = plan.programs[step.program].inputs
        names = {v.name for v, name in zip(formals, step.reads, strict=False) if name in states}
        found[step.program] = found.get(step.program, frozenset(names)) & names
    # A program within a program gets operands, of which nobody knows what they are.
    return {key: names for key, names in found.items() if key not in control.called(plan)}


def mutated_values(op: Op, info: optable.OpInfo) -> list[str]:
    """Names of the program values that the call writes to."""
    bound = bind(op, info)
    return values_in(bound, info.mutated(bound))


def values_in(bound: Mapping[str, args.Arg], parameters: Iterable[str]) -> list[str]:
    """Names of the program values that are passed for these parameters."""
    leaves = (leaf for name in parameters for leaf in args.walk(bound.get(name)))
    return [leaf.name for leaf in leaves if isinstance(leaf, args.Ref)]


def bind(op: Op, info: optable.OpInfo) -> dict[str, args.Arg]:
    """Parameter name → decoded argument. Raises ArgError when they do not fit the parameters."""
    positional = [a for a in info.args if not a.keyword_only]
    if len(op.args) > len(positional):
        raise args.ArgError(f"{len(op.args)} positional arguments; it takes {len(positional)}")
    bound = {p.name: args.decode(v) for p, v in zip(positional, op.args, strict=False)}
    known = {a.name for a in info.args}
    for name, value in op.kwargs.items():
        if name == rng.KEYWORD:
            continue  # no parameter of the operator: `_Program.seed` checks it
        if name not in known:
            raise args.ArgError(f"it has no parameter {name!r}")
        if name in bound:
            raise args.ArgError(f"{name!r} is given twice")
        bound[name] = args.decode(value)
    for parameter in info.args:
        if parameter.name not in bound and not parameter.optional:
            raise args.ArgError(f"{parameter.name!r} is missing")
    return bound


class _Program:
    def __init__(
        self, plan: ExecutionPlan, path: str, program: Program, appended: frozenset[str]
    ) -> None:
        self.plan = plan
        self.path = path
        self.program = program
        self.errors: list[GenieError] = []
        self.created: set[str] = set()
        self.seeds: set[str] = set()
        self.known = {v.name for v in program.inputs}
        self.appended = appended
        """Inputs that the program may write to: state that grows."""
        self.roots = {name: frozenset({name}) for name in self.known}
        """Values that are, or may be, memory of the program's inputs: of which."""

    def check(self) -> list[GenieError]:
        if len(self.known) != len(self.program.inputs):
            self.fail("GEN0309", "inputs", "two inputs have one name")
        for i, op in enumerate(self.program.ops):
            self.op(f"ops[{i}]", op)
        names = [v.name for v in self.program.outputs]
        if len(set(names)) != len(names):
            self.fail("GEN0309", "outputs", "two outputs have one name")
        for name in names:
            if name not in self.created:
                self.fail("GEN0308", "outputs", f"{name!r} is computed by no operator of it")
        return self.errors

    def fail(self, code: str, part: str, message: str, cause: str | None = None) -> None:
        self.errors.append(problem(code, f"{self.path}.{part}", message, cause))

    def op(self, part: str, op: Op) -> None:
        info = optable.lookup(op.op)
        roots: frozenset[str] = frozenset()
        if op.op in CONTROL:
            try:
                self.control(part, op)
            except args.ArgError as error:
                self.fail("GEN0307", part, f"{op.op}: {error}")
        elif info is None:
            close = optable.similar(op.op)
            hint = f"did you mean {close[0]}?" if close else None
            self.fail("GEN0306", part, f"the operator {op.op} is not on the allow-list", hint)
        else:
            if self.plan.opset.schemas.get(op.op) not in (None, info.schema):
                self.stale(part, op.op)
            try:
                roots = self.call(part, op, info)
            except args.ArgError as error:
                self.fail("GEN0307", part, f"{op.op}: {error}")
        for name in op.out:
            if name is None:
                continue
            if roots:
                self.roots[name] = roots
            if name in self.known:
                self.fail("GEN0309", part, f"{name!r} is defined twice")
            self.known.add(name)
            self.created.add(name)

    def stale(self, part: str, name: str) -> None:
        self.errors.append(
            GenieError(
                "GEN0318",
                f"{name} had another schema in the torch that the plan was captured with",
                problem("GEN0318", f"{self.path}.{part}", "").place,
                f"captured with torch {self.plan.opset.torch}; "
                f"this version knows {optable.captured_torch()}",
                "compile the plan again with this version",
            )
        )

    def control(self, part: str, op: Op) -> None:
        """Check a control-flow call; its results are memory of their own."""
        call = control.parsed(op)
        for name in call.reads:
            self.leaf(part, op, args.Ref(name))
        for told in control.problems(self.plan, op, call):
            self.fail("GEN0307", part, f"{op.op}: {told}")

    def call(self, part: str, op: Op, info: optable.OpInfo) -> frozenset[str]:
        """Check a call; the inputs of the program whose memory a result may be."""
        bound = bind(op, info)
        types = {a.name: a.type for a in info.args}
        for name, value in bound.items():
            if not _fits(types[name], value):
                shown = str(args.encode(value))[:60]
                raise args.ArgError(f"{name} takes {types[name]}, not {shown}")
            for leaf in args.walk(value):
                self.leaf(part, op, leaf)
        if not info.returns_list and len(op.out) != len(info.returns):
            raise args.ArgError(f"it returns {len(info.returns)} values, {len(op.out)} are named")
        for name in values_in(bound, info.mutated(bound)):
            roots = self.roots.get(name, frozenset())
            if not (roots or name in self.created) or not roots <= self.appended:
                cause = (
                    "a program mutates only what it created, no view of what it was given, and "
                    "state that every step that calls it appends to"
                )
                self.fail("GEN0323", part, f"{op.op} writes to {name!r}", cause)
        self.seed(part, op, info.draws(bound))
        aliased = values_in(bound, info.aliased())
        return frozenset[str]().union(*(self.roots.get(name, ()) for name in aliased))

    def seed(self, part: str, op: Op, draws: bool) -> None:
        """A call that draws names its seed, an input of the program; no other call does."""
        if rng.KEYWORD not in op.kwargs:
            if draws:
                cause = "a retry would draw other numbers; a plan that draws names the seed"
                self.fail("GEN0306", part, f"{op.op} draws random numbers", cause)
            return
        if not draws:
            raise args.ArgError(f"{rng.KEYWORD!r} is for calls that draw random numbers")
        seed = args.decode(op.kwargs[rng.KEYWORD])
        types = {v.name: v.type for v in self.program.inputs}
        if not isinstance(seed, args.Ref) or types.get(seed.name) != rng.SEED_TYPE:
            what = f"{rng.KEYWORD!r} names an input of the program of type {rng.SEED_TYPE}"
            raise args.ArgError(what)
        if self.seeds and seed.name not in self.seeds:
            raise args.ArgError("one program draws from one seed")
        self.seeds.add(seed.name)

    def leaf(self, part: str, op: Op, leaf: args.Arg) -> None:
        if isinstance(leaf, args.Ref) and leaf.name not in self.known:
            self.fail("GEN0308", part, f"{op.op} reads {leaf.name!r} before it is defined")
        if isinstance(leaf, Expr) and (unknown := sorted(leaf.names - set(self.plan.dims))):
            self.fail("GEN0308", part, f"{leaf.text[:60]}: unknown dimension {unknown[0]!r}")


def _is_int(value: args.Arg) -> bool:
    return isinstance(value, int | Expr) and not isinstance(value, bool)


def _is_number(value: args.Arg) -> bool:
    return isinstance(value, int | float | complex | Expr)


def _named(kind: str) -> Any:
    return lambda value: isinstance(value, args.Named) and value.kind == kind


_SCALARS: dict[str, Any] = {
    # torch wraps a number where a tensor is wanted: x + 1 is aten.add.Tensor(x, 1).
    "Tensor": lambda v: isinstance(v, args.Ref) or _is_number(v),
    "int": _is_int,
    "float": lambda v: isinstance(v, float) or _is_int(v),
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "Scalar": _is_number,
    "ScalarType": _named("dtype"),
    "Layout": _named("layout"),
    "Device": _named("device"),
    "MemoryFormat": _named("memory_format"),
    "Generator": lambda v: False,
}


def _fits(kind: str, value: args.Arg) -> bool:
    """Whether an argument may be passed where a schema says `kind`; `SymInt` is `int` there."""
    kind = kind.replace("SymInt", "int")
    if kind.endswith("?"):
        return value is None or _fits(kind[:-1], value)
    if kind.endswith("[]"):
        if isinstance(value, tuple):
            return all(_fits(kind[:-2], item) for item in value)
        return kind in ("int[]", "float[]") and _fits(kind[:-2], value)
    return bool(_SCALARS[kind](value))
