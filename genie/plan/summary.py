"""What a plan says, read from its JSON as far as it can be read.

`plan show` must work on plans that are too new, stale or damaged, so nothing here takes a field's
presence or type for granted: what cannot be read is None or left out. Sizes are in bytes at the
largest sizes of the dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genie.plan.text import clip
from genie_schemas.expr import ExprError, parse
from genie_schemas.types import TypeTextError, parse_type

__all__ = ["DeviceLine", "ProgramLine", "StepLine", "Summary", "largest_bytes", "summarize"]


@dataclass(frozen=True)
class DeviceLine:
    """A device; `needs` is the plan's declared peak on it, `loads` the constants brought to it."""

    id: str
    kind: str
    memory: int | None
    needs: int | None
    loads: int


@dataclass(frozen=True)
class StepLine:
    """A step. `where` lists its device, or source and destination.

    `constants` is how many constants it reads and `constant_bytes` their size; `reads` and
    `writes` are the values, with their sizes.
    """

    id: str
    kind: str
    where: tuple[str, ...]
    program: str | None
    ops: int | None
    constants: int
    constant_bytes: int
    reads: tuple[str, ...]
    read_bytes: int | None
    writes: tuple[str, ...]
    write_bytes: int | None


@dataclass(frozen=True)
class ProgramLine:
    """A program and the steps that call it."""

    key: str
    ops: int
    scratch: int | None
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """A plan in lines, ready to be shown."""

    header: tuple[tuple[str, str], ...]
    """name, plan_digest, format_version, min_reader, compiler, torch: those that are there."""
    requires: tuple[str, ...]
    dims: tuple[tuple[str, str], ...]
    devices: tuple[DeviceLine, ...]
    entrypoints: tuple[tuple[str, str], ...]
    constants: int
    constant_bytes: int
    files: tuple[str, ...]
    steps: tuple[StepLine, ...]
    programs: tuple[ProgramLine, ...]
    state: tuple[tuple[str, str], ...]
    loops: tuple[tuple[str, str], ...]
    placement: tuple[str, ...]
    semantics: Mapping[str, Any]
    unknown: tuple[str, ...]
    """Top-level fields that this version does not know."""


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def texts(value: Any) -> tuple[str, ...]:
    """The strings of a list."""
    return tuple(clip(v) for v in items(value) if isinstance(v, str))


def number(value: Any) -> int | None:
    """The value if it is an integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Sizes:
    """Types and sizes of the plan's names."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.ranges = {
            name: (low, high)
            for name, dim in mapping(data.get("dims")).items()
            if (low := number(mapping(dim).get("min"))) is not None
            and (high := number(mapping(dim).get("max"))) is not None
        }
        self.constants = mapping(data.get("constants"))
        self.types: dict[str, str] = {}
        tables = (data.get("values"), data.get("state"), self.constants)
        for table in tables:
            for name, entry in mapping(table).items():
                self._add(name, mapping(entry).get("type"))
        for entry in mapping(data.get("entrypoints")).values():
            for item in items(mapping(entry).get("inputs")):
                self._add(mapping(item).get("name"), mapping(item).get("type"))

    def _add(self, name: Any, text: Any) -> None:
        if isinstance(name, str) and isinstance(text, str):
            self.types.setdefault(name, text)

    def of_type(self, text: str) -> int | None:
        try:
            return self.of_expr(parse_type(text).bytes_text())
        except (TypeTextError, ExprError):
            return None

    def of_expr(self, text: Any) -> int | None:
        if not isinstance(text, str):
            return None
        try:
            return max(0, parse(text).bounds(self.ranges)[1])
        except ExprError:
            return None

    def of(self, name: str) -> int | None:
        text = self.types.get(name)
        return self.of_type(text) if text is not None else None

    def total(self, names: tuple[str, ...]) -> int | None:
        found = [self.of(n) for n in names]
        known = [n for n in found if n is not None]
        return sum(known) if len(known) == len(found) else None

    def constant(self, name: str) -> int:
        return number(mapping(self.constants.get(name)).get("bytes")) or 0


def largest_bytes(data: Mapping[str, Any], text: str, *, expression: bool = False) -> int | None:
    """Bytes of a tensor type, or of an expression in bytes, at the plan's largest sizes."""
    sizes = _Sizes(data)
    return sizes.of_expr(text) if expression else sizes.of_type(text)


def summarize(data: Mapping[str, Any]) -> Summary:
    """Read what can be read of a plan's JSON values; never raises for what they hold."""
    sizes = _Sizes(data)
    steps = tuple(_steps(data, sizes))
    provenance, opset = mapping(data.get("provenance")), mapping(data.get("opset"))
    header = [(k, data.get(k)) for k in ("name", "plan_digest", "format_version", "min_reader")]
    header += [("compiler", provenance.get("compiler")), ("torch", opset.get("torch"))]
    constants = sizes.constants
    sources = (mapping(c).get("source") for c in constants.values())
    advisory = mapping(data.get("advisory"))
    return Summary(
        header=tuple((k, clip(v)) for k, v in header if v is not None),
        requires=texts(data.get("requires")),
        dims=tuple((clip(n), _range(d)) for n, d in mapping(data.get("dims")).items()),
        devices=tuple(_devices(data, sizes)),
        entrypoints=tuple(_entrypoints(data, sizes, steps)),
        constants=len(constants),
        constant_bytes=sum(sizes.constant(n) for n in constants),
        files=tuple(sorted({clip(s.partition("#")[0]) for s in sources if isinstance(s, str)})),
        steps=steps,
        programs=tuple(_programs(data, sizes)),
        state=tuple((clip(n), _state(s)) for n, s in mapping(data.get("state")).items()),
        loops=tuple((clip(n), _loop(v)) for n, v in mapping(data.get("loops")).items()),
        placement=texts(advisory.get("placement")),
        semantics=mapping(advisory.get("semantics")),
        unknown=tuple(clip(k) for k in data if k not in _KNOWN),
    )


_KNOWN = frozenset(
    "format format_version min_reader plan_digest name requires opset provenance dims devices"
    " links entrypoints constants state programs values policies steps loops advisory".split()
)


def _range(dim: Any) -> str:
    low, high = number(mapping(dim).get("min")), number(mapping(dim).get("max"))
    return f"{'?' if low is None else low}..{'?' if high is None else high}"


def _state(state: Any) -> str:
    s = mapping(state)
    return (
        f"{clip(s.get('type'))} on {clip(s.get('device'))}, {clip(s.get('update'))}, "
        f"starts as {clip(s.get('initial'))}, version {clip(s.get('version'))}"
    )


def _loop(loop: Any) -> str:
    v = mapping(loop)
    carried = ", ".join(texts(v.get("carry")))
    text = (
        f"{clip(v.get('entry'))}, then {clip(v.get('body'))} until {clip(v.get('until'))}; "
        f"carries {carried or 'nothing'}"
    )
    sample = mapping(v.get("sample"))
    if not sample:
        return text
    ends = ", ".join(clip(token) for token in items(sample.get("eos"))[:_TOKENS])
    return (
        f"{text}; at most {clip(sample.get('capacity'))} tokens, ends with {ends or 'none'}, "
        f"pads with {clip(sample.get('pad'))}"
    )


_TOKENS = 8
"""Tokens that end a sequence, as many as are shown."""


def _devices(data: Mapping[str, Any], sizes: _Sizes) -> Iterator[DeviceLine]:
    for name, entry in mapping(data.get("devices")).items():
        device = mapping(entry)
        brought = {
            constant
            for step in map(mapping, items(data.get("steps")))
            if step.get("kind") == "load" and step.get("device") == name
            for constant in texts(step.get("reads"))
        }
        loads = sum(map(sizes.constant, brought))
        memory, needs = number(device.get("memory_bytes")), number(device.get("needs"))
        yield DeviceLine(clip(name), clip(device.get("kind")), memory, needs, loads)


def _entrypoints(
    data: Mapping[str, Any], sizes: _Sizes, steps: tuple[StepLine, ...]
) -> Iterator[tuple[str, str]]:
    returned = {n: s.where[0] for s in steps if s.kind == "return" and s.where for n in s.reads}
    for name, entry in mapping(data.get("entrypoints")).items():
        inputs = ", ".join(
            f"{clip(i.get('name'))}: {clip(i.get('type'))} on {clip(i.get('device'))}"
            for i in map(mapping, items(mapping(entry).get("inputs")))
        )
        outputs = []
        for output in map(mapping, items(mapping(entry).get("outputs"))):
            value = output.get("value")
            shown = f"{clip(output.get('name'))}: "
            if isinstance(value, str):
                shown += clip(sizes.types.get(value, "?"))
                shown += f" from {returned[value]}" if value in returned else ""
            else:
                shown += f"always {clip(output.get('literal'))}"
            outputs.append(shown)
        yield clip(name), f"({inputs}) -> {', '.join(outputs) or 'nothing'}"


def _steps(data: Mapping[str, Any], sizes: _Sizes) -> Iterator[StepLine]:
    programs = mapping(data.get("programs"))
    for raw in items(data.get("steps")):
        step = mapping(raw)
        places = (step.get("device"), step.get("src"), step.get("dst"))
        program = step.get("program")
        names = texts(step.get("reads"))
        constants = tuple(n for n in names if n in sizes.constants)
        reads = tuple(n for n in names if n not in sizes.constants)
        writes = texts(step.get("writes"))
        called = mapping(programs.get(program)) if isinstance(program, str) else {}
        yield StepLine(
            id=clip(step.get("id")),
            kind=clip(step.get("kind")),
            where=tuple(clip(p) for p in places if p is not None),
            program=clip(program) if program is not None else None,
            ops=len(items(called.get("ops"))) if called else None,
            constants=len(constants),
            constant_bytes=sum(sizes.constant(n) for n in constants),
            reads=reads,
            read_bytes=sizes.total(reads),
            writes=writes,
            write_bytes=sizes.total(writes),
        )


def _programs(data: Mapping[str, Any], sizes: _Sizes) -> Iterator[ProgramLine]:
    callers: dict[str, list[str]] = {}
    for step in map(mapping, items(data.get("steps"))):
        if isinstance(step.get("program"), str):
            callers.setdefault(step["program"], []).append(clip(step.get("id")))
    for key, program in mapping(data.get("programs")).items():
        yield ProgramLine(
            key=clip(key),
            ops=len(items(mapping(program).get("ops"))),
            scratch=sizes.of_expr(mapping(program).get("scratch_bytes")),
            steps=tuple(callers.get(key, ())),
        )
