"""`genie plan show`: any plan as text or as JSON values, as far as it can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genie.plan.check import check_plan
from genie.plan.summary import StepLine, Summary, items, mapping, summarize
from genie.plan.text import call_text, clip, columns, count, few, short_digest, size_text
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.reader import check_header, parse, read_bytes, read_plan

__all__ = [
    "Shown",
    "load",
    "program_of",
    "show_json",
    "show_program",
    "show_text",
]


class Shown:
    """A plan file that was read for showing.

    `data` are its JSON values, `summary` what could be read of them, `problems` why it cannot run
    with this version (empty when it can, as far as the file alone tells).
    """

    def __init__(self, path: Path) -> None:
        """Read `path`; raises GenieError GEN0300, GEN0301, GEN0302 or GEN0314."""
        raw = read_bytes(path)
        self.data = parse(raw, str(path))
        self.problems: tuple[GenieError, ...] = ()
        try:
            check_header(self.data, str(path))
            check_plan(read_plan(raw, str(path)))
        except GenieErrors as errors:
            self.problems = errors.errors
        except GenieError as error:
            if error.code == "GEN0302":
                raise
            self.problems = (error,)
        self.summary = summarize(self.data)


def load(path: Path) -> Shown:
    """Read a plan for showing, whatever its version or state.

    Raises GenieError only when there is nothing to show: GEN0300 unreadable, GEN0301 no JSON,
    GEN0302 no plan, GEN0314 beyond the size limit.
    """
    return Shown(path)


def show_text(shown: Shown) -> str:
    """The plan on one or two screens, newline at the end."""
    return "\n".join(_lines(shown)) + "\n"


def _lines(shown: Shown) -> Iterator[str]:
    s = shown.summary
    head = dict(s.header)
    name = head.get("name", "(without a name)")
    yield f"plan {name}  {short_digest(head.get('plan_digest', '?'))}"
    yield from _problems(shown)
    yield from columns(list(_facts(s)))
    for name, text in s.entrypoints:
        yield f"\n{name}{text}"
    yield from _devices(s)
    used = [place for step in s.steps for place in step.where]
    for device in dict.fromkeys([*(d.id for d in s.devices), *used]):
        yield from _device_steps(s, device)
    yield from _transfers(s)
    yield from _programs(s)
    for title, pairs in (("state", _alike(s.state)), ("loops", s.loops)):
        if pairs:
            yield f"\n{title}"
            yield from columns(pairs)
    if s.placement:
        yield "\nplacement"
        yield from (f"  {reason}" for reason in s.placement)


def _alike(states: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """States of one kind in a line: names that differ in their numbers alone."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, text in states:
        groups.setdefault((re.sub(r"\d+", "*", name), text), []).append(name)
    return [
        (names[0], text)
        if len(names) == 1
        else (f"{names[0]} … {names[-1]}", f"{len(names)} × {text}")
        for (_, text), names in groups.items()
    ]


def _problems(shown: Shown) -> Iterator[str]:
    if not shown.problems:
        return
    yield "  cannot run with this version of Genie:"
    for problem in shown.problems[:5]:
        path = problem.place.path if problem.place is not None else None
        at = f" ({path})" if path and path not in problem.message else ""
        yield f"    {problem.code}: {problem.message}{at}"
    if len(shown.problems) > 5:
        yield f"    and {len(shown.problems) - 5} more: `genie plan verify` lists them"
    if shown.problems[0].remedy:
        yield f"    remedy: {shown.problems[0].remedy}"


def _facts(s: Summary) -> Iterator[tuple[str, str]]:
    head = dict(s.header)
    versions = f"{head.get('format_version', '?')}, for readers from {head.get('min_reader', '?')}"
    yield "format", versions
    made = [f"Genie {head['compiler']}"] if "compiler" in head else []
    made += [f"torch {head['torch']}"] if "torch" in head else []
    if made:
        yield "made with", ", ".join(made)
    if s.requires:
        yield "requires", ", ".join(s.requires)
    if s.dims:
        yield "dimensions", ", ".join(f"{name} {span}" for name, span in s.dims)
    held = f"{count(s.constants, 'tensor')}, {size_text(s.constant_bytes)}"
    yield "constants", f"{held} in {few(s.files)}" if s.files else held
    kinds: dict[str, int] = {}
    for step in s.steps:
        kinds[step.kind] = kinds.get(step.kind, 0) + 1
    yield "steps", f"{len(s.steps)}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    if s.unknown:
        yield "unknown", f"fields of another version, not shown: {', '.join(s.unknown)}"


def _devices(s: Summary) -> Iterator[str]:
    if not s.devices:
        return
    largest = ", ".join(f"{n}={span.rpartition('..')[2]}" for n, span in s.dims)
    yield f"\ndevices (sizes{f' at {largest}' if largest else ''})"
    rows = []
    for d in s.devices:
        limit = f"of {size_text(d.memory)}" if d.memory is not None else ""
        rows.append((d.id, d.kind, f"peak {size_text(d.needs)}", limit, _loaded(d.loads)))
    yield from columns(rows)


def _loaded(nbytes: int) -> str:
    return f"{size_text(nbytes)} of constants" if nbytes else ""


def _device_steps(s: Summary, device: str) -> Iterator[str]:
    rows = [row for step in s.steps if (row := _row(step, device)) is not None]
    if rows:
        yield f"\non {device}"
        yield from columns(rows)


def _row(step: StepLine, device: str) -> tuple[str, ...] | None:
    """A line of a device's table; None for loads and frees, which the sizes tell of."""
    if device not in step.where or step.kind in ("load", "free"):
        return None
    if step.kind == "transfer":
        if step.where[0] == device:
            sent = f"to {step.where[-1]}"
            return (few(step.reads), sent, "", "", size_text(step.read_bytes))
        return (few(step.writes), f"from {step.where[0]}", "", "", size_text(step.write_bytes))
    if step.kind == "compute":
        ops = "? ops" if step.ops is None else count(step.ops, "op")
        held = f"{size_text(step.constant_bytes)} constants" if step.constants else ""
        flow = f"{size_text(step.read_bytes)} -> {size_text(step.write_bytes)}"
        return (step.id.rpartition("/compute@")[0] or step.id, ops, step.program or "?", held, flow)
    return (few(step.reads), step.kind, "", "", size_text(step.read_bytes))


def _transfers(s: Summary) -> Iterator[str]:
    moves = [step for step in s.steps if step.kind == "transfer"]
    if not moves:
        return
    known = [m.read_bytes for m in moves if m.read_bytes is not None]
    yield f"\ntransfers: {len(moves)}, {size_text(sum(known))} a run"
    yield from columns(
        [(few(m.reads), " -> ".join(m.where), size_text(m.read_bytes)) for m in moves]
    )


def _programs(s: Summary) -> Iterator[str]:
    shared = [p for p in s.programs if len(p.steps) > 1]
    if not s.programs:
        return
    yield f"\nprograms: {len(s.programs)}" + ("" if shared else ", none shared")
    yield from columns(
        [
            (
                f"{len(p.steps)} × {p.key}",
                count(p.ops, "op"),
                few([i.partition("/compute@")[0] for i in p.steps]),
            )
            for p in shared
        ]
    )


def program_of(shown: Shown, key: str) -> dict[str, Any] | None:
    """The program `key`, or the one that the step `key` calls, as JSON values.

    `{key, step, reads, writes, program}`; the three in the middle are null without a step. None
    when the plan has neither.
    """
    programs = mapping(shown.data.get("programs"))
    steps = map(mapping, items(shown.data.get("steps")))
    step = next((s for s in steps if s.get("id") == key), None)
    wanted = step.get("program") if step is not None else key
    if not isinstance(wanted, str) or wanted not in programs:
        return None
    called = step or {}
    return {
        "key": wanted,
        "step": called.get("id"),
        "reads": called.get("reads"),
        "writes": called.get("writes"),
        "program": programs[wanted],
    }


def show_program(shown: Shown, key: str) -> str | None:
    """A program by its key, or by the id of a step that calls it; None when there is neither.

    Of a step, the actual names stand beside the program's own.
    """
    found = program_of(shown, key)
    if found is None:
        return None
    program = mapping(found["program"])
    lines = [f"program {found['key']}" + (f", as {key} calls it" if found["step"] else "")]
    for part, actual in (("inputs", items(found["reads"])), ("outputs", items(found["writes"]))):
        rows = []
        for i, formal in enumerate(map(mapping, items(program.get(part)))):
            known = f"= {clip(actual[i])}" if i < len(actual) else ""
            rows.append((clip(formal.get("name")), clip(formal.get("type")), known))
        lines += [f"  {part}", *columns(rows, "    ")]
    lines += ["  ops", *(f"    {call_text(op)}" for op in items(program.get("ops")))]
    return "\n".join(lines) + "\n"


def show_json(shown: Shown) -> dict[str, Any]:
    """The summary as plain JSON values; sizes in bytes, null where the plan does not tell."""
    s = shown.summary
    head: Mapping[str, str] = dict(s.header)
    return {
        "name": head.get("name"),
        "plan_digest": head.get("plan_digest"),
        "format_version": head.get("format_version"),
        "min_reader": head.get("min_reader"),
        "compiler": head.get("compiler"),
        "torch": head.get("torch"),
        "runnable": not shown.problems,
        "problems": [p.to_json() for p in shown.problems],
        "requires": list(s.requires),
        "dims": dict(s.dims),
        "devices": [
            {"id": d.id, "kind": d.kind, "memory_bytes": d.memory, "needs": d.needs}
            for d in s.devices
        ],
        "entrypoints": dict(s.entrypoints),
        "constants": {
            "count": s.constants,
            "bytes": s.constant_bytes,
            "files": list(s.files),
        },
        "steps": [
            {
                "id": step.id,
                "kind": step.kind,
                "where": list(step.where),
                "program": step.program,
                "ops": step.ops,
                "constants": step.constants,
                "constant_bytes": step.constant_bytes,
                "reads": list(step.reads),
                "read_bytes": step.read_bytes,
                "writes": list(step.writes),
                "write_bytes": step.write_bytes,
            }
            for step in s.steps
        ],
        "programs": [
            {"key": p.key, "ops": p.ops, "scratch_bytes": p.scratch, "steps": list(p.steps)}
            for p in s.programs
        ],
        "state": dict(s.state),
        "loops": dict(s.loops),
        "placement": list(s.placement),
        "semantics": dict(s.semantics),
    }
