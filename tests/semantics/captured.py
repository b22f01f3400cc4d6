"""A corpus entry captured: its graph with every name scrambled, and its calls' labels."""

from __future__ import annotations

import dataclasses
import random
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genie.capture.capture import capture
from genie.capture.exporter import export
from genie.graph.ir import Body, Constant, Graph, Input, Node, Output, Value
from tests.capture.compiling import spec_of
from tests.semantics.corpus import Entry

Label = tuple[str, str] | None
"""Role, and which region of that role; None where the documentation does not say."""


@dataclass(frozen=True)
class Captured:
    """`labels` has one for each node of the graph; `seconds` is what exporting it took."""

    entry: Entry
    graph: Graph
    labels: tuple[Label, ...]
    seconds: float


def capture_entry(entry: Entry) -> Captured:
    """Build and export the model, take the labels from the modules' names, scramble the names."""
    graph, seconds = graph_of(entry)
    labels = tuple(label_of(node, entry.regions) for node in graph.nodes)
    return Captured(entry, scramble(graph, entry.name), labels, seconds)


def graph_of(entry: Entry) -> tuple[Graph, float]:
    """The graph as the compiler captures it, and the seconds of export and capture."""
    module, inputs = entry.build()
    symbols = any("b" in item["shape"] for item in inputs.values())
    spec = spec_of(inputs, {"b": (1, 4)} if symbols else None)
    path = Path(__file__)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(module, spec, path, path.name)
        found = capture(module, program, spec, path.name, lambda node: None)
    return found.graph, time.perf_counter() - start


def label_of(node: Node, regions: Mapping[str, str]) -> Label:
    """The label whose key names the node's module, or one above it, in most parts."""
    best: tuple[int, Label] = (-1, None)
    parts = node.module.split(".") if node.module else []
    for key, role in regions.items():
        path, mark, op = key.partition("!")
        wanted = path.split(".") if path else []
        if mark and (len(parts) != len(wanted) or node.op.split(".")[1] != op):
            continue
        if len(wanted) > len(parts):
            continue
        if all(w in ("*", p) for w, p in zip(wanted, parts, strict=False)):
            kept = [p for w, p in zip(wanted, parts, strict=False) if w == "*"]
            rank = 2 * len(wanted) + bool(mark)
            if rank > best[0]:
                name, _, tag = role.partition(":")
                best = (rank, (name, "/".join([tag, *kept])))
    return best[1]


def scramble(graph: Graph, seed: str) -> Graph:
    """The same graph with every name of a module, class, value, input and output replaced."""
    draw = random.Random(seed)
    names: dict[str, str] = {}

    def new(name: str) -> str:
        if name not in names:
            names[name] = f"n{draw.getrandbits(48):012x}"
        return names[name]

    def path(module: str) -> str:
        return ".".join(new(f"module {part}") for part in module.split(".")) if module else ""

    def value(v: Value) -> Value:
        return dataclasses.replace(v, name=new(v.name))

    def node(n: Node) -> Node:
        reads = {name: new(name) for name in n.reads()}
        return dataclasses.replace(
            n.renamed(reads),
            results=tuple(None if v is None else value(v) for v in n.results),
            module=path(n.module),
        )

    def constant(c: Constant) -> Constant:
        return dataclasses.replace(c, value=value(c.value), key=new(c.key), digest="")

    def body(b: Body) -> Body:
        return Body(
            b.name,
            tuple(value(v) for v in b.inputs),
            tuple(node(n) for n in b.nodes),
            tuple(new(name) for name in b.outputs),
        )

    return dataclasses.replace(
        graph,
        name="scrambled",
        inputs=tuple(Input(value(i.value)) for i in graph.inputs),
        constants=tuple(constant(c) for c in graph.constants),
        nodes=tuple(node(n) for n in graph.nodes),
        outputs=tuple(
            Output(f"o{i}", None if o.value is None else new(o.value), o.literal)
            for i, o in enumerate(graph.outputs)
        ),
        modules=tuple((path(p), new(f"class {c}")) for p, c in graph.modules),
        bodies=tuple(body(b) for b in graph.bodies),
        ragged=tuple(new(name) for name in graph.ragged),
    )
