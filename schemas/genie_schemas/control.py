"""Control flow in programs: calls of other programs, decided by values while running.

    hop.cond        [pred, {program}, {program}, [operands]]       the first when pred is true
    hop.while_loop  [{program}, {program}, [carried], [others]]    condition, body
    hop.scan        [{program}, [carried], [scanned], [others]]    one turn for each index of dim 0

The called program's inputs are the operands in this order (of a scan: one slice of each scanned
value). A body's outputs are the new carried values; a scan's body returns, after them, what each
turn adds to the stacked results. Results have memory of their own: they never alias an operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genie_schemas.args import Arg, ArgError, ProgramRef, Ref

CONTROL = ("hop.cond", "hop.while_loop", "hop.scan")
"""Every control-flow operator."""

FEATURE = "compute.control"
"""What a plan with control flow requires of its executors."""

MAX_DEPTH = 16
"""How deep programs may call programs."""


@dataclass(frozen=True)
class Control:
    """A control-flow call, taken apart. Names are of values of the calling program."""

    kind: str
    programs: tuple[str, ...]
    predicate: str | None
    carried: tuple[str, ...]
    scanned: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def operands(self) -> tuple[str, ...]:
        """What the called programs take, in order."""
        return (*self.carried, *self.scanned, *self.others)

    @property
    def reads(self) -> tuple[str, ...]:
        """Every value that the call reads, in order."""
        return (() if self.predicate is None else (self.predicate,)) + self.operands


def parse_control(kind: str, arguments: Sequence[Arg]) -> Control:
    """Take a call's arguments apart. Raises ArgError when they do not fit `kind`."""
    shapes = {"hop.cond": "vppl", "hop.while_loop": "ppll", "hop.scan": "plll"}
    if kind not in shapes:
        raise ArgError(f"{kind} is no control-flow operator")
    shape = shapes[kind]
    if len(arguments) != len(shape):
        raise ArgError(f"it takes {len(shape)} arguments, not {len(arguments)}")
    programs: list[str] = []
    lists: list[tuple[str, ...]] = []
    predicate: str | None = None
    for what, argument in zip(shape, arguments, strict=True):
        if what == "p" and isinstance(argument, ProgramRef):
            programs.append(argument.key)
        elif what == "v" and isinstance(argument, Ref):
            predicate = argument.name
        elif what == "l" and isinstance(argument, tuple):
            lists.append(tuple(_name(item) for item in argument))
        else:
            raise ArgError(f"{kind} takes a program, a value or a list of values there")
    if kind == "hop.cond":
        return Control(kind, tuple(programs), predicate, (), (), lists[0])
    if kind == "hop.while_loop":
        return Control(kind, tuple(programs), None, lists[0], (), lists[1])
    if not lists[1]:
        raise ArgError("a scan goes over at least one value")
    return Control(kind, tuple(programs), None, *lists)


def _name(item: Arg) -> str:
    if not isinstance(item, Ref):
        raise ArgError("operands of control flow are values")
    return item.name
