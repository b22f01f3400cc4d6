"""What the inputs are, and which of them reach each call.

An input's modality follows from what is first done with it: integers that index a table in the
order of a sequence are text; a table a field, or a bag, is tabular; numbers that enter a
two-dimensional convolution or are cut into patches are an image; numbers that a strided
convolution or a spectrogram's front end runs over in time are sound. Other integers, such as
attention masks, steer and carry nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from genie.semantics.operators import (
    ATTENTION,
    BAG,
    CONVOLUTION,
    LAYOUT,
    LOOKUP,
    NORMALIZATION,
    PRODUCT,
    RECURRENT,
    SOFTMAX,
)
from genie.semantics.structure import Call, Structure, Tensor

__all__ = ["Lookup", "Modality", "Signals", "signals_of"]

Modality = Literal["text", "vision", "audio", "tabular", "control"]

_EASY = LAYOUT | {
    "mul",
    "div",
    "sub",
    "add",
    "sigmoid",
    "log",
    "abs",
    "clamp",
    "where",
    "remainder",
}
"""What may stand between an input and the first operator that tells what it is."""


@dataclass(frozen=True)
class Lookup:
    """Rows of a table, taken by an input's integers."""

    call: int
    rows: int
    width: int
    source: int
    """The input."""
    sequence: bool
    """Whether one call takes the rows of a whole sequence."""
    bag: bool


@dataclass(frozen=True)
class Signals:
    """Modalities by input, and the inputs that reach each call with what they carry."""

    modality: Mapping[int, Modality]
    lookups: tuple[Lookup, ...]
    reach: tuple[int, ...]
    """Call → bit mask over the places of inputs; control inputs have none."""
    conditioned: bool
    """Whether integers are made real numbers without a table, as diffusion's time steps are."""
    details: Mapping[int, str] = field(default_factory=dict)

    def of(self, *wanted: Modality) -> list[int]:
        """Places of the inputs of these modalities."""
        return [place for place, found in self.modality.items() if found in wanted]

    def mask(self, *wanted: Modality) -> int:
        """Bit mask of the inputs of these modalities."""
        return sum(1 << place for place in self.of(*wanted))


def signals_of(s: Structure) -> Signals:
    """Find the modality of each input, by place, and what reaches each call."""
    direct = _direct(s)
    lookups = tuple(_lookups(s, direct))
    modality: dict[int, Modality] = {}
    details: dict[int, str] = {}
    for place, number in enumerate(s.inputs):
        modality[place], details[place] = _modality(s, place, number, lookups)
    reach = _reach(s, modality, lookups)
    conditioned = _conditioned(s, modality)
    return Signals(modality, lookups, reach, conditioned, details)


def _direct(s: Structure) -> dict[int, int]:
    """Integer tensors that are an input's own integers, at most moved, cast or shifted → place."""
    known = {n: p for p, n in enumerate(s.inputs) if not s.tensors[n].floating}
    for call in s.calls:
        if call.name in _EASY:
            sources = {known[n] for n in call.reads if n in known}
            if len(sources) == 1:
                known.update((n, min(sources)) for n in call.writes if not s.tensors[n].floating)
    return known


def _lookups(s: Structure, direct: Mapping[int, int]) -> list[Lookup]:
    found = []
    for call in s.calls:
        if call.name in LOOKUP:
            table, index = s.weight(call.tensor(0)), call.tensor(1)
        elif call.name == "index_select":
            table, index = s.weight(call.tensor(0)), call.tensor(2)
        elif call.name == "index" and isinstance(call.value(1), tuple):
            given = call.value(1)
            table = s.weight(call.tensor(0))
            one = given[0] if isinstance(given, tuple) and len(given) == 1 else None
            index = int(one.name) if one is not None and hasattr(one, "name") else None
        else:
            continue
        if table is None or index is None or index not in direct or table.rank != 2:
            continue
        rows, width = table.shape
        bag = call.name in BAG
        indices = s.tensors[index]
        sequence = not bag and indices.rank >= 2 and indices.shape[-1] != 0
        found.append(Lookup(call.number, rows or 0, width or 0, direct[index], sequence, bag))
    return found


def _modality(
    s: Structure, place: int, number: int, lookups: tuple[Lookup, ...]
) -> tuple[Modality, str]:
    tensor = s.tensors[number]
    mine = [look for look in lookups if look.source == place]
    if not tensor.floating:
        if not mine:
            return "control", "integers that index no table"
        if any(look.sequence and _mixes(s, look.call) for look in mine):
            return "text", "a sequence of ids whose rows attention or recurrence mixes"
        return "tabular", f"ids that index {len(mine)} table(s)"
    return _of_numbers(s, number, tensor)


def _mixes(s: Structure, call: int) -> bool:
    """Whether a sequence's positions are mixed by order: attention, recurrence, convolution."""
    for other in s.calls:
        if not s.above[other.number] & (1 << call):
            continue
        if other.name in RECURRENT or other.name in ATTENTION or other.name == "conv1d":
            return True
        if other.name in SOFTMAX or other.name.startswith(("fft", "_fft")):
            made = s.result(other)
            if made is not None and made.rank >= 3:
                return True
    return False


def _of_numbers(s: Structure, number: int, tensor: Tensor) -> tuple[Modality, str]:
    if tensor.rank == 0:
        return "control", "a single number"
    if _joined(s, number):
        return "control", "what earlier calls computed, joined with new rows and handed back"
    entry = _first(s, number)
    if entry is None:
        return "tabular", "numbers that no layer takes"
    given = _given(s, entry, number)
    if entry.name in CONVOLUTION:
        spatial = given.rank - 2 if given is not None else 0
        if spatial == 2 and tensor.rank >= 4:
            return "vision", "numbers in rows and columns that a convolution takes"
        if spatial == 3:
            return "vision", "frames of rows and columns that a convolution takes"
        if spatial == 2 and _ordered_later(s, entry):
            return "audio", "frames of a spectrogram that a convolution takes, then a sequence"
        if spatial == 2:
            return "vision", "rows and columns without channels that a convolution takes"
        if spatial == 1 and _strides(s, entry) >= 2:
            return "audio", "a signal in time that strided convolutions take"
        return "tabular", "a series that a convolution without stride takes"
    if tensor.rank >= 4 and _like_image(tensor):
        return "vision", "rows and columns cut into patches"
    return "tabular", "numbers without rows and columns"


def _joined(s: Structure, number: int) -> bool:
    """Whether an input goes into a `cat` whose result is an output: a cache handed in and out."""
    outputs = set(s.outputs)
    return any(
        s.calls[r].name == "cat" and outputs.intersection(s.calls[r].writes)
        for r in s.readers[number]
    )


def _like_image(tensor: Tensor) -> bool:
    """[…, few channels, height, width] or […, height, width, few channels]."""
    *_, a, b, c = tensor.shape
    first = a is not None and a <= 4 and min(b or 8, c or 8) >= 8
    last = c is not None and c <= 4 and min(a or 8, b or 8) >= 8
    return first or last


def _first(s: Structure, number: int) -> Call | None:
    """The first call behind a tensor that computes: a convolution, a product, a norm, a lookup."""
    waiting, seen = deque([number]), {number}
    while waiting:
        for reader in s.readers[waiting.popleft()]:
            call = s.calls[reader]
            if call.name not in _EASY | NORMALIZATION | {"mean", "std", "var", "sqrt", "pow"}:
                return call
            for made in call.writes:
                if made not in seen:
                    seen.add(made)
                    waiting.append(made)
    return None


def _given(s: Structure, call: Call, number: int) -> Tensor | None:
    place = call.tensor(0)
    return s.tensors[place] if place is not None else None


def _strides(s: Structure, entry: Call) -> int:
    """By how much the convolutions at `entry` and right after shorten the time axis."""
    total, call = 1, entry
    for _ in range(16):
        if call.name in CONVOLUTION:
            stride = call.value(3, "stride")
            first = stride[0] if isinstance(stride, tuple) and stride else 1
            total *= first if isinstance(first, int) else 1
        elif call.name in RECURRENT | ATTENTION | PRODUCT | {"linear"}:
            break
        following = s.users[call.number]
        if not following:
            break
        call = s.calls[following[0]]
    return total


def _ordered_later(s: Structure, entry: Call) -> bool:
    """Whether attention or recurrence over a sequence follows."""
    return any(
        (call.name in RECURRENT or call.name in ATTENTION or call.name in SOFTMAX)
        and s.above[call.number] >> entry.number & 1
        and (result := s.result(call)) is not None
        and result.rank >= 3
        for call in s.calls
    )


def _reach(
    s: Structure, modality: Mapping[int, Modality], lookups: tuple[Lookup, ...]
) -> tuple[int, ...]:
    """What each call's result carries of the inputs: real numbers that come of them."""
    carried: dict[int, int] = {}
    for place, number in enumerate(s.inputs):
        if modality[place] != "control" and s.tensors[number].floating:
            carried[number] = 1 << place
    sources = {look.call: 1 << look.source for look in lookups}
    memory: dict[int, int] = {}
    found = []
    for call in s.calls:
        mask = sources.get(call.number, 0)
        for number in call.reads:
            tensor = s.tensors[number]
            if tensor.floating:
                mask |= carried.get(number, 0) | memory.get(number, 0)
        made = s.result(call)
        if made is not None and not made.floating:
            mask = 0
        for number in call.writes:
            carried[number] = mask
        for number in call.mutates:
            memory[number] = memory.get(number, 0) | mask
            carried[number] = carried.get(number, 0) | mask
        found.append(mask)
    return tuple(found)


def _conditioned(s: Structure, modality: Mapping[int, Modality]) -> bool:
    """Whether waves are made of an input that is no sequence: a time step's embedding."""
    for call in s.named(("sin", "cos")):
        above = s.above[call.number]
        for place, number in enumerate(s.inputs):
            tensor = s.tensors[number]
            if tensor.rank <= 1 and any(above >> r & 1 for r in s.readers[number]):
                return modality[place] in ("control", "tabular")
    return False
