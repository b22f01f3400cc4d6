"""One entry point on one device at given dimension sizes: its steps, everything resolved.

A schedule is built (`building`) once for a combination of sizes and run many times. It also knows
what a run holds at most: the same accounting as `genie_schemas.verify.memory`, at actual sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from genie_runtime.executors.bound import Bound
from genie_runtime.executors.ops import DTYPE
from genie_runtime.ports import Region, RunRequest
from genie_schemas.errors import GenieError, Place
from genie_schemas.types import parse_type

__all__ = [
    "Compute",
    "Form",
    "Free",
    "Receive",
    "Return",
    "Schedule",
    "ScheduleStep",
    "Send",
    "check_region",
    "mismatch",
]


@dataclass(frozen=True)
class Form:
    """A tensor type at given sizes: what a value must be, and how it lies in a region."""

    text: str
    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, text: str, dims: Mapping[str, int]) -> Form:
        """The form of a type text. Raises ExprError when a size cannot be evaluated."""
        kind = parse_type(text)
        return cls(text, DTYPE[kind.dtype], kind.sizes(dims), kind.strides(dims), kind.nbytes(dims))

    def in_region(self, area: torch.Tensor, offset: int) -> torch.Tensor:
        """The tensor of this form that lies at `offset` of `area` (uint8), without a copy.

        Its storage ends where it ends: a program's `as_strided` cannot reach what lies beside it.
        """
        storage = area.untyped_storage()[offset : offset + self.nbytes]
        return torch.empty(0, dtype=self.dtype).set_(storage, 0, self.sizes, self.strides)

    def lies_like(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` has these strides, dimensions of one element aside."""
        strides = tensor.stride()
        if strides == self.strides or self.nbytes == 0:
            return True
        triples = zip(self.sizes, strides, self.strides, strict=True)
        return all(size == 1 or a == b for size, a, b in triples)


@dataclass(frozen=True)
class Compute:
    """Run a program. `constants[i]` is the tensor of read `i`, or None when it is no constant.

    `fixed[i]` says that read `i` is the same tensor in every run that has the same state.
    """

    id: str
    timeout: float
    bound: Bound
    reads: tuple[str, ...]
    constants: tuple[torch.Tensor | None, ...]
    fixed: tuple[bool, ...]
    addresses: frozenset[int]
    writes: tuple[tuple[str, Form], ...]
    live: int
    scratch: int
    appends: bool = False
    """It writes into state that it reads."""
    replaces: tuple[tuple[str, str], ...] = ()
    """(state, written value that takes its place)"""
    salt: str = ""
    """Of the random numbers drawn: empty where the seed was sent to, else the plan's device."""


@dataclass(frozen=True)
class Send:
    """Copy a value to the region of an outgoing transfer."""

    id: str
    timeout: float
    value: str
    form: Form


@dataclass(frozen=True)
class Receive:
    """Wait for the bytes of an incoming transfer and make them a value."""

    id: str
    timeout: float
    value: str
    form: Form


@dataclass(frozen=True)
class Free:
    """Drop values."""

    id: str
    timeout: float
    values: tuple[str, ...]


@dataclass(frozen=True)
class Return:
    """Copy a value, or a constant, to its output region."""

    id: str
    timeout: float
    value: str
    constant: torch.Tensor | None
    form: Form


ScheduleStep = Compute | Send | Receive | Free | Return


@dataclass(frozen=True)
class Schedule:
    """What a run of one entry point does on one device. Byte counts are at these sizes.

    `loaded` are the constants that the entry point loads here and their bytes; `states` is the
    state of the device when the entry point uses any; `base` is what is held at the start, `states`
    not counted.
    """

    steps: tuple[ScheduleStep, ...]
    inputs: Mapping[str, Form]
    incoming: Mapping[str, Form]
    outgoing: Mapping[str, Form]
    outputs: Mapping[str, Form]
    states: Mapping[str, Form]
    loaded: Mapping[str, int]
    base: int
    scratch: dict[str, int] = field(default_factory=dict)
    """Compute step → bytes that its program was seen to hold; what the plan declares until then."""

    @property
    def constant_bytes(self) -> int:
        """Bytes of the constants that it loads."""
        return sum(self.loaded.values())

    @property
    def state_bytes(self) -> int:
        """Bytes of the device's state."""
        return sum(form.nbytes for form in self.states.values())

    def peak(self) -> int:
        """The most bytes that a run holds beside constants and state."""
        peak = self.base
        for step in self.steps:
            if isinstance(step, Compute):
                written = sum(form.nbytes for _, form in step.writes)
                scratch = self.scratch.get(step.id, step.scratch)
                peak = max(peak, step.live + max(scratch, written))
        return peak

    def check_regions(self, request: RunRequest, size_of: Callable[[int], int | None]) -> None:
        """Check that each region is there, of its value's length, aligned and inside its arena.

        Raises GenieError GEN0467 for a missing one and GEN0466 for one that does not fit.
        """
        for part, forms, regions in (
            ("inputs", self.inputs, request.inputs),
            ("incoming", self.incoming, request.incoming),
            ("outgoing", self.outgoing, request.outgoing),
            ("outputs", self.outputs, request.outputs),
        ):
            for name, form in forms.items():
                if name not in regions:
                    raise mismatch(f"the request has no region for {name!r}", f"{part}.{name}")
                check_region(regions[name], form.nbytes, size_of, f"{part}.{name}")


def check_region(
    region: Region, nbytes: int, size_of: Callable[[int], int | None], path: str
) -> None:
    """Raise GenieError GEN0466 unless `region` holds exactly `nbytes` of a mapped arena."""
    size = size_of(region.arena)
    cause = None
    if size is None:
        cause = f"arena {region.arena} is not mapped"
    elif region.offset < 0 or region.offset % 64:
        cause = f"its offset {region.offset} is no multiple of 64"
    elif region.length != nbytes:
        cause = f"it has {region.length} bytes, the value {nbytes}"
    elif region.offset + region.length > size:
        cause = f"it ends beyond its arena of {size} bytes"
    if cause is not None:
        raise GenieError(
            "GEN0466",
            f"the region of {path} does not fit its value",
            Place(path=path),
            cause,
            "report this: the runtime should have checked it before",
        )


def mismatch(message: str, path: str, cause: str | None = None) -> GenieError:
    """GEN0467 for a request that does not fit its plan."""
    return GenieError("GEN0467", message, Place(path=path), cause, "compare it with the plan")
