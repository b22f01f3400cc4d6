"""How two programs of one layer differ: which calls came, went and changed, by their names."""

from __future__ import annotations

from collections.abc import Iterator

from genie.plan.text import call_text
from genie_schemas import writer
from genie_schemas.plan import Op, Program

__all__ = ["program_lines"]

LISTED = 8
"""Lines of one program's difference that are listed."""


def program_lines(old: Program, new: Program) -> list[str]:
    """Lines such as `+ conv3.conv2d = aten.conv2d.default(…)`; at most `LISTED` and a remainder."""
    lines = [*_calls(old, new), *_signature(old, new)]
    if old.scratch_bytes != new.scratch_bytes:
        lines.append(f"~ scratch {old.scratch_bytes} -> {new.scratch_bytes}")
    if not lines:
        lines = ["~ the same calls in another order"]
    if len(lines) > LISTED + 1:
        return [*lines[:LISTED], f"and {len(lines) - LISTED} more"]
    return lines


def _calls(old: Program, new: Program) -> Iterator[str]:
    before, after = _keyed(old.ops), _keyed(new.ops)
    for key, op in before.items():
        if key not in after:
            yield f"- {_text(op)}"
        elif writer.to_data(op) != writer.to_data(after[key]):
            yield f"~ {_text(op)}"
            yield f"  now {_text(after[key])}"
    for key, op in after.items():
        if key not in before:
            yield f"+ {_text(op)}"


def _text(op: Op) -> str:
    return call_text(writer.to_data(op))


def _keyed(ops: list[Op]) -> dict[tuple[str, int], Op]:
    """Calls by the first name they define; those that define none by operator and operand."""
    found: dict[tuple[str, int], Op] = {}
    for op in ops:
        name = next((n for n in op.out if n is not None), None)
        base = name if name is not None else f"{op.op} {op.args[:1]}"
        number = 0
        while (base, number) in found:
            number += 1
        found[base, number] = op
    return found


def _signature(old: Program, new: Program) -> Iterator[str]:
    for part in ("inputs", "outputs"):
        before = {v.name: v.type for v in getattr(old, part)}
        after = {v.name: v.type for v in getattr(new, part)}
        for name, kind in before.items():
            if name not in after:
                yield f"- {part[:-1]} {name}: {kind}"
            elif after[name] != kind:
                yield f"~ {part[:-1]} {name}: {kind} -> {after[name]}"
        for name, kind in after.items():
            if name not in before:
                yield f"+ {part[:-1]} {name}: {kind}"
