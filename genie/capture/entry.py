"""An entry point on its way into a graph: what is exported, under which inputs.

A plain module has one entry point, its forward. A language model has two, which share states:
while one of them is captured, it stands in the place of the module's forward, so that modules,
parameters and lines of the user's code keep their names.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from genie.graph.entries import FORWARD
from genie.graph.ir import Graph, Output, State
from genie_schemas.plan import Loop
from genie_schemas.spec import Spec

__all__ = ["Entry", "EntryPoints", "StateInput", "standing", "with_states"]


@dataclass(frozen=True)
class StateInput:
    """An input of the exported function that is a state of the plan."""

    name: str
    update: Literal["append", "replace"]
    output: str | None = None
    """The function's output that takes a `replace` state's place."""


@dataclass(frozen=True)
class Entry:
    """What is captured as one entry point; `forward` None stands for the module's own.

    `spec` holds its inputs and dimensions. `states` names those inputs that are states (one that is
    no input is replaced without being read); `ranges` are dimensions whose range in the plan is
    narrower than the one that was traced.
    """

    name: str
    spec: Spec
    forward: Callable[..., Any] | None = None
    states: Mapping[str, StateInput] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def plain(cls, spec: Spec) -> Entry:
        """The module's own forward under the spec's inputs."""
        return cls(FORWARD, spec)


@dataclass(frozen=True)
class EntryPoints:
    """The entry points of a module to capture, and the loops over them."""

    entries: tuple[Entry, ...]
    loops: Mapping[str, Loop] = field(default_factory=dict)


@contextmanager
def standing(model: nn.Module, entry: Entry) -> Iterator[None]:
    """Let the entry's function be the module's forward meanwhile."""
    if entry.forward is None:
        yield
        return
    own = vars(model).get("forward")
    model.forward = entry.forward
    try:
        yield
    finally:
        del model.forward
        if own is not None:
            model.forward = own


def with_states(graph: Graph, entry: Entry) -> Graph:
    """The graph with the inputs that are states as such, and with the plan's dimensions."""
    if not entry.states and not entry.ranges:
        return graph
    names = {given: state.name for given, state in entry.states.items()}
    by_output = {s.output: given for given, s in entry.states.items() if s.output is not None}
    news = {by_output[o.name]: o.value for o in graph.outputs if o.name in by_output}
    read = {name for node in graph.nodes for name in node.reads()}
    inputs = {item.name: item.value for item in graph.inputs}
    fresh = itertools.count(max((v.storage for v in graph.values()), default=0) + 1)
    states = []
    for given, state in entry.states.items():
        new = news.get(given)
        value = inputs.get(given)
        if value is None and new is not None:
            value = dataclasses.replace(graph.table[new], storage=next(fresh))
        if value is not None and (given in read or new is not None):
            states.append(State(dataclasses.replace(value, name=state.name), state.update, new))
    return dataclasses.replace(
        graph,
        dims=tuple((n, *entry.ranges.get(n, (low, high))) for n, low, high in graph.dims),
        inputs=tuple(i for i in graph.inputs if i.name not in names),
        nodes=tuple(node.renamed(names) for node in graph.nodes),
        outputs=tuple(_renamed(o, names) for o in graph.outputs if o.name not in by_output),
        states=tuple(states),
    )


def _renamed(output: Output, names: Mapping[str, str]) -> Output:
    return dataclasses.replace(output, value=names.get(output.value or "", output.value))
