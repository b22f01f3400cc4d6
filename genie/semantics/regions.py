"""Regions: the modules that become steps, so that repeated layers share one program.

The module tree is cut where layers repeat: below a module that holds a list of equal children
(`blocks.0`, `blocks.1`, …) each child is a region, and so is every other child of the modules on
the way there. What has no repetition below stays whole. A module's own calls between its children
belong to the module itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from genie.graph.ir import Graph

MIN_LAYER_OPS = 4
"""A repeated child with fewer calls is no layer: its own step would cost more than it shows."""


@dataclass(frozen=True)
class Region:
    """A module that is scheduled as a unit: its path, its class name, its calls."""

    path: str
    kind: str
    ops: int


def assign_regions(graph: Graph, splits: tuple[str, ...] = ()) -> tuple[list[str], list[Region]]:
    """The region path of every node, in order, and the regions in the order of first use.

    `splits` are module paths that must not be swallowed by a region above them, because a
    placement names them.
    """
    tree = _Tree(graph)
    opened = tree.opened(splits)
    paths = [_region(node.module, opened) for node in graph.nodes]
    kinds = dict(graph.modules)
    counts = Counter(paths)
    regions = [Region(path, kinds.get(path, ""), counts[path]) for path in dict.fromkeys(paths)]
    return paths, regions


def _region(module: str, opened: frozenset[str]) -> str:
    """The first module on the way down to `module` that is not opened, or `module` itself."""
    path = ""
    for part in module.split(".") if module else []:
        if path not in opened:
            return path
        path = f"{path}.{part}" if path else part
    return path


class _Tree:
    """The module tree with the number of calls below each module."""

    def __init__(self, graph: Graph) -> None:
        self.kinds: Mapping[str, str] = dict(graph.modules)
        self.below: Counter[str] = Counter()
        self.children: dict[str, list[str]] = {}
        for path in self.kinds:
            if path:
                self.children.setdefault(path.rpartition(".")[0], []).append(path)
        for node in graph.nodes:
            path = node.module
            self.below[path] += 1
            while path:
                path = path.rpartition(".")[0]
                self.below[path] += 1

    def opened(self, splits: tuple[str, ...]) -> frozenset[str]:
        """The modules that are looked into instead of being taken whole; the root always is."""
        found = {""}
        self._open("", found)
        for path in splits:
            while path:
                path = path.rpartition(".")[0]
                found.add(path)
        return frozenset(found)

    def _open(self, path: str, found: set[str]) -> None:
        for child in self.children.get(path, ()):
            if self._has_layers(child):
                found.add(child)
                self._open(child, found)

    def _is_list(self, path: str) -> bool:
        layers = [
            c
            for c in self.children.get(path, ())
            if c.rpartition(".")[2].isdigit() and self.below[c] >= MIN_LAYER_OPS
        ]
        kinds = Counter(self.kinds[c] for c in layers)
        return any(count >= 2 for count in kinds.values())

    def _has_layers(self, path: str) -> bool:
        return self._is_list(path) or any(self._has_layers(c) for c in self.children.get(path, ()))
