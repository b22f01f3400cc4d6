"""The graph IR: a frozen, torch-free picture of a captured module."""

from genie.graph.entries import Entries
from genie.graph.ir import Body, Constant, Graph, Input, Node, Output, State, Value
from genie.graph.legality import STAGE_RULES, check
from genie.graph.printer import print_graph

__all__ = [
    "STAGE_RULES",
    "Body",
    "Constant",
    "Entries",
    "Graph",
    "Input",
    "Node",
    "Output",
    "State",
    "Value",
    "check",
    "print_graph",
]
