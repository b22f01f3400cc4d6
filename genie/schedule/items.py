"""A node on its way into a segment."""

from __future__ import annotations

from dataclasses import dataclass

from genie.graph.ir import Node


@dataclass
class Item:
    """A node with its region, its device, and the number of the segment that it is in."""

    node: Node
    region: str
    device: str
    segment: int = 0
    origin: int = 0
    """The segment before any joining."""
    again: bool = False
    """Whether it takes a view again that another segment took before."""
