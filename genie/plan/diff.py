"""What differs between two plans, in the words of their authors: steps, layers, devices, bytes.

Steps are matched by their names, so a step that moved to another device is one change and not
two. Loads and frees follow from the other steps and are counted, not listed. Whatever executors
read is compared: two plans with different digests always have at least one change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genie.plan.programs_diff import program_lines
from genie.plan.text import clip, count, few, size_text
from genie_schemas import writer
from genie_schemas.expr import ExprError, parse
from genie_schemas.plan import ComputeStep, ExecutionPlan, Link, Step, TransferStep

__all__ = ["Change", "Difference", "diff_plans"]


@dataclass(frozen=True)
class Change:
    """One change. `what` names the part of the plan, `kind` is added, removed, moved or changed."""

    what: str
    kind: str
    name: str
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """All changes from plan `a` to plan `b`; `digests` are theirs, `aside` what nobody executes."""

    digests: tuple[str, str]
    changes: tuple[Change, ...]
    aside: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether executors would see no difference."""
        return self.digests[0] == self.digests[1]


@dataclass
class _Diff:
    a: ExecutionPlan
    b: ExecutionPlan
    changes: list[Change] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    """Top-level fields whose difference a change tells of."""

    def add(self, what: str, kind: str, name: str, text: str, details: Sequence[str] = ()) -> None:
        self.changes.append(Change(what, kind, name, text, tuple(details)))


def diff_plans(a: ExecutionPlan, b: ExecutionPlan) -> Difference:
    """Compare two plans that the reader has accepted; they need not be verified."""
    digests = (a.plan_digest, b.plan_digest)
    if a.plan_digest == b.plan_digest:
        aside = [n for n in ("provenance", "advisory") if getattr(a, n) != getattr(b, n)]
        return Difference(digests, (), tuple(aside))
    d = _Diff(a, b)
    _header(d)
    _dims(d)
    _entrypoints(d)
    _devices(d)
    _steps(d)
    _programs(d)
    _values(d)
    _constants(d)
    _tables(d)
    _rest(d)
    return Difference(digests, tuple(d.changes))


# -- the parts ---------------------------------------------------------------------------------


def _header(d: _Diff) -> None:
    for name in ("format_version", "min_reader", "name"):
        old, new = getattr(d.a, name), getattr(d.b, name)
        if old != new:
            d.covered.add(name)
            d.add("plan", "changed", name, f"{old} -> {new}")
    _lists(d, "plan", "requires", d.a.requires, d.b.requires)
    if d.a.opset != d.b.opset:
        d.covered.add("opset")
        old_torch, new_torch = d.a.opset.torch, d.b.opset.torch
        if old_torch != new_torch:
            d.add("plan", "changed", "torch", f"captured with {old_torch} -> {new_torch}")
        old_ops, new_ops = d.a.opset.schemas, d.b.opset.schemas
        other = [n for n in old_ops if n in new_ops and old_ops[n] != new_ops[n]]
        for kind, names in (
            ("added", [n for n in new_ops if n not in old_ops]),
            ("removed", [n for n in old_ops if n not in new_ops]),
            ("changed", other),
        ):
            if names:
                d.add("operators", kind, "", few(names, 6))


def _lists(d: _Diff, what: str, name: str, old: Sequence[str], new: Sequence[str]) -> None:
    if list(old) != list(new):
        d.covered.add(name)
        d.add(what, "changed", name, f"{', '.join(old) or 'none'} -> {', '.join(new) or 'none'}")


def _dims(d: _Diff) -> None:
    _table(d, "dims", "dimension", lambda dim: f"{dim.min}..{dim.max}")


def _entrypoints(d: _Diff) -> None:
    for name, (old, new) in _pairs(d.a.entrypoints, d.b.entrypoints):
        if old is None or new is None:
            kind = "added" if old is None else "removed"
            d.covered.add("entrypoints")
            d.add("entry point", kind, name, count(len((old or new).steps), "step"))
            continue
        for part, shown in (
            ("inputs", lambda i: f"{i.type} on {i.device}"),
            ("outputs", lambda o: str(o.value) if o.value is not None else clip(o.literal)),
        ):
            olds = {item.name: item for item in getattr(old, part)}
            news = {item.name: item for item in getattr(new, part)}
            before = len(d.changes)
            _entries(d, f"{name} {part[:-1]}", olds, news, shown)
            if before == len(d.changes) and list(olds) != list(news):
                d.add(f"{name} {part[:-1]}", "changed", "order", f"{list(olds)} -> {list(news)}")
            if before != len(d.changes):
                d.covered.add("entrypoints")


def _devices(d: _Diff) -> None:
    for name, (old, new) in _pairs(d.a.devices, d.b.devices):
        d.covered.add("devices")
        if old is None or new is None:
            device = old or new
            kind = "added" if old is None else "removed"
            d.add("device", kind, name, f"{device.kind}, needs {size_text(device.needs)}")
            continue
        parts = []
        if old.kind != new.kind:
            parts.append(f"{old.kind} -> {new.kind}")
        if old.memory_bytes != new.memory_bytes:
            limits = (_limit(old.memory_bytes), _limit(new.memory_bytes))
            parts.append(f"memory {limits[0]} -> {limits[1]}")
        if old.needs != new.needs:
            parts.append(f"peak {_sizes(old.needs, new.needs)}")
        d.add("device", "changed", name, ", ".join(parts))


def _limit(nbytes: int | None) -> str:
    return "unlimited" if nbytes is None else size_text(nbytes)


def _sizes(old: int, new: int) -> str:
    """Such as 1.0 MiB -> 1.5 MiB (+512.0 KiB); exact where rounding hides the change."""
    before, after = size_text(old), size_text(new)
    if before == after:
        before, after = f"{old} B", f"{new} B"
    return f"{before} -> {after} ({'+' if new > old else '-'}{size_text(abs(new - old))})"


# -- steps -------------------------------------------------------------------------------------


def _where(step: Step) -> str:
    if isinstance(step, TransferStep):
        return f"{step.src}->{step.dst}"
    return step.device


def _label(step: Step) -> tuple[str, str]:
    """What stays the same when the step moves: its kind and its id without the place."""
    return step.kind, step.id.replace(f"@{_where(step)}", "@", 1)


def _matches(d: _Diff) -> Iterator[tuple[Step | None, Step | None]]:
    """Each step of `a` with its like in `b`; first by id, then by what it does."""
    olds, news = {s.id: s for s in d.a.steps}, {s.id: s for s in d.b.steps}
    waiting: dict[tuple[str, str], list[Step]] = {}
    for step in d.b.steps:
        if step.id not in olds:
            waiting.setdefault(_label(step), []).append(step)
    taken: set[str] = set()
    for step in d.a.steps:
        like = news.get(step.id)
        if like is None and waiting.get(_label(step)):
            like = waiting[_label(step)].pop(0)
        if like is not None:
            taken.add(like.id)
        yield step, like
    yield from ((None, step) for step in d.b.steps if step.id not in taken)


def _steps(d: _Diff) -> None:
    quiet: dict[tuple[str, str], int] = {}
    for old, new in _matches(d):
        step = old or new
        if step is None or (old is not None and old == new):
            continue
        if old is None or new is None:
            kind = "added" if old is None else "removed"
            if step.kind in ("load", "free"):
                quiet[step.kind, kind] = quiet.get((step.kind, kind), 0) + 1
            else:
                d.add("step", kind, step.id, _about(d.b if old is None else d.a, step))
            continue
        parts = _step_parts(old, new)
        if step.kind in ("load", "free"):
            quiet[step.kind, "changed"] = quiet.get((step.kind, "changed"), 0) + 1
        elif _where(old) != _where(new):
            moved = f"{_where(old)} -> {_where(new)}"
            d.add("step", "moved", old.id.rpartition("@")[0], moved, parts)
        elif parts:
            d.add("step", "changed", step.id, "; ".join(parts))
    for (step_kind, kind), number in sorted(quiet.items()):
        d.add(f"{step_kind} steps", kind, "", str(number))
    if any(c.what.endswith(("step", "steps")) for c in d.changes):
        d.covered.update(("steps", "entrypoints"))
    elif [s.id for s in d.a.steps] != [s.id for s in d.b.steps]:
        pairs = zip(d.a.steps, d.b.steps, strict=False)
        first = next((x.id for x, y in pairs if x.id != y.id), "")
        d.covered.update(("steps", "entrypoints"))
        d.add("step", "changed", "order", f"the same steps in another order, from {first} on")


def _step_parts(old: Step, new: Step) -> list[str]:
    """How two steps of one name differ, apart from where they run and from their programs."""
    parts = []
    for name in ("reads", "writes", "after"):
        before, after = list(getattr(old, name, ())), list(getattr(new, name, ()))
        gone, come = [n for n in before if n not in after], [n for n in after if n not in before]
        verb = {"after": "waits for"}.get(name, name)
        if come and gone:
            parts.append(f"{verb} {few(come)} instead of {few(gone)}")
        elif come or gone:
            parts.append(f"{verb} {few(come)} too" if come else f"no longer {verb} {few(gone)}")
        elif before != after:
            parts.append(f"{verb} in another order")
    for name in ("policy", "priority", "effect"):
        was, now = getattr(old, name, None), getattr(new, name, None)
        if was != now:
            parts.append(f"{name} {_plain(was)} -> {_plain(now)}")
    return parts


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else clip(writer.to_data(value))


def _about(plan: ExecutionPlan, step: Step) -> str:
    if isinstance(step, ComputeStep):
        program = plan.programs.get(step.program)
        held = [plan.constants[n].bytes for n in step.reads if n in plan.constants]
        text = count(len(program.ops), "op") if program is not None else "unknown program"
        return f"{text}, {size_text(sum(held))} of constants" if held else text
    if isinstance(step, TransferStep):
        return f"{size_text(_upper(plan, step.reads[0]))} over {_where(step)}"
    return few(list(step.reads))


def _upper(plan: ExecutionPlan, name: str) -> int | None:
    """Bytes of a value (or an input) at the largest sizes."""
    value = plan.values.get(name)
    try:
        return parse(value.bytes).bounds(plan.ranges())[1] if value is not None else None
    except ExprError:
        return None


# -- programs, values, constants ---------------------------------------------------------------


def _programs(d: _Diff) -> None:
    """Programs that matched steps call: one change for each pair, however many steps share it."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for old, new in _matches(d):
        if not isinstance(old, ComputeStep) or not isinstance(new, ComputeStep):
            continue
        if old.program != new.program:
            pairs.setdefault((old.program, new.program), []).append(old.id)
    for (old_key, new_key), ids in pairs.items():
        before, after = d.a.programs.get(old_key), d.b.programs.get(new_key)
        if before is None or after is None:
            continue
        names = [i.rpartition("/compute@")[0] or i for i in ids]
        text = f"{old_key} -> {new_key}" + (f", {len(ids)} steps" if len(ids) > 1 else "")
        d.add("program", "changed", few(names), text, program_lines(before, after))
    if pairs or "steps" in d.covered:
        d.covered.update(("programs", "steps"))


def _values(d: _Diff) -> None:
    """Values of another type or size. They move, come and go with the steps that write them."""
    changed: dict[str, list[str]] = {}
    for name, (old, new) in _pairs(d.a.values, d.b.values):
        if old is not None and new is not None and (old.type, old.bytes) != (new.type, new.bytes):
            text = f"{old.type} -> {new.type}"
            if old.type == new.type:
                text = f"{old.bytes} bytes -> {new.bytes}"
            changed.setdefault(text, []).append(name)
    for text, names in changed.items():
        d.add("value", "changed", few(names), text)
    if changed or "steps" in d.covered:
        d.covered.add("values")


def _constants(d: _Diff) -> None:
    groups: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
    retyped: dict[str, list[str]] = {}
    moved = {}
    for name, (old, new) in _pairs(d.a.constants, d.b.constants):
        d.covered.add("constants")
        if old is None or new is None:
            groups["added" if old is None else "removed"].append(name)
        elif old.type != new.type:
            retyped.setdefault(f"{old.type} -> {new.type}", []).append(name)
        elif old.digest != new.digest:
            groups["changed"].append(name)
        else:
            files = old.source.partition("#")[0], new.source.partition("#")[0]
            moved[files[0] if files[0] != files[1] else old.source] = (
                files[1] if files[0] != files[1] else new.source
            )
    for kind, names in groups.items():
        if names:
            plan = d.a if kind == "removed" else d.b
            total = sum(plan.constants[n].bytes for n in names)
            what = "with other content" if kind == "changed" else "in all"
            d.add("constants", kind, few(names, 4), f"{len(names)}, {size_text(total)} {what}")
    for text, names in retyped.items():
        d.add("constants", "changed", few(names, 4), text)
    if moved and not any(c.what == "constants" for c in d.changes):
        for before, after in moved.items():
            d.add("constants", "changed", "file", f"{before} -> {after}")


def _tables(d: _Diff) -> None:
    _table(d, "links", "link", _link)
    _table(d, "policies", "policy", _plain)
    _table(d, "state", "state", _plain)
    _table(d, "loops", "loop", _plain)


def _link(link: Link) -> str:
    return f"{link.bandwidth_bytes_per_s / 1e9:g} GB/s, {link.round_trip_us} µs"


def _rest(d: _Diff) -> None:
    """Whatever else differs, so that different plans never have an empty difference."""
    for name in type(d.a).model_fields:
        if name in writer.UNDIGESTED or name in d.covered:
            continue
        if getattr(d.a, name) != getattr(d.b, name):
            d.add("plan", "changed", name, "differs; see the files")
    if not d.changes:
        d.add("plan", "changed", "order", "the same content in another order")


# -- helpers -----------------------------------------------------------------------------------


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Names whose entries differ, with both entries, None where there is none."""
    for name in [*old, *(n for n in new if n not in old)]:
        if old.get(name) != new.get(name):
            yield name, (old.get(name), new.get(name))


def _entries(
    d: _Diff,
    what: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    shown: Callable[[Any], str],
) -> None:
    for name, (before, after) in _pairs(old, new):
        if before is None or after is None:
            kind = "added" if before is None else "removed"
            d.add(what, kind, name, shown(after if before is None else before))
        else:
            d.add(what, "changed", name, f"{shown(before)} -> {shown(after)}")


def _table(d: _Diff, name: str, what: str, shown: Callable[[Any], str]) -> None:
    old, new = getattr(d.a, name), getattr(d.b, name)
    if old != new:
        d.covered.add(name)
        _entries(d, what, old, new, shown)
