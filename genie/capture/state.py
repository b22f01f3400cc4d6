"""What a forward changes of the model itself: buffers that it updates become outputs.

A run of a plan is a function: it starts from the buffers as the weights file has them, works on a
copy, and hands the new value back as an output `updated.<buffer>`. So the same run twice gives the
same result, and nothing is lost in silence. A *lifted* constant has no name in the model to hand a
new value back under: a forward that writes to one is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import fx

from genie.graph.ir import Output, Value
from genie.graph.outputs import update_name

Written = Mapping[int, tuple[str, fx.Node]]
"""Storage → the operator that first wrote to it, and its call."""


def updates(
    held: Iterable[tuple[Value, str, object]], written: Written, taken: Iterable[str]
) -> list[Output]:
    """An output for each parameter and buffer that the forward writes to, in the model's order.

    `held` are values with their kind and tensor, `taken` the names of the other outputs.
    """
    names = set(taken)
    found = []
    for value, kind, _ in held:
        if kind == "lifted" or value.storage not in written:
            continue
        name = update_name(value.name, names)
        names.add(name)
        found.append(Output(name, value.name))
    return found


def lost(
    held: Iterable[tuple[Value, str, object]], written: Written
) -> tuple[Value, str, fx.Node] | None:
    """The first lifted constant that the forward writes to, with the operator and its call."""
    for value, kind, _ in held:
        if kind == "lifted" and value.storage in written:
            return (value, *written[value.storage])
    return None


def shared(
    held: Iterable[tuple[Value, str, object]], written: Written
) -> tuple[Value, Value, str, fx.Node] | None:
    """Two tensors of the model in one memory that the forward writes to: operator and call."""
    first: dict[int, Value] = {}
    for value, _, _ in held:
        other = first.setdefault(value.storage, value)
        if other is not value and value.storage in written:
            return (other, value, *written[value.storage])
    return None
