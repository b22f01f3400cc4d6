"""What is known of an exported graph while it is walked, and how to name a place in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx
from torch.export import ExportedProgram

from genie.capture.aliases import Storages
from genie.capture.encode import Symbols, type_text
from genie.capture.randomness import Draws
from genie.graph.ir import Body, Node, Value
from genie_schemas.args import Arg
from genie_schemas.errors import GenieError, Place
from genie_schemas.names import Namer
from genie_schemas.spec import Spec

__all__ = ["Locate", "Walk", "module_of"]

Locate = Callable[[fx.Node], Place | None]


class Walk:
    """One walk over an exported graph: what became of its nodes so far."""

    def __init__(self, program: ExportedProgram, spec: Spec, shown: str, locate: Locate) -> None:
        self.program = program
        self.spec = spec
        self.shown = shown
        self.locate = locate
        self.draws = Draws(spec)
        self.namer = Namer()
        self.symbols = Symbols({})
        self.storages = Storages()
        self.refs: dict[fx.Node, Arg] = {}
        """What later calls read for a node; `tuples` for those with several results."""
        self.tuples: dict[fx.Node, tuple[Arg, ...]] = {}
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.ragged: dict[str, tuple[list[int], str]] = {}
        """Value whose size data decides → the dimensions that it decides, and the module."""
        self.written: dict[int, tuple[str, fx.Node]] = {}
        """Storage → the operator that first wrote to it, and its call."""
        self.bodies: list[Body] = []
        self.body_names = Namer()

    def inside(self) -> Walk:
        """A walk for a graph within this one: the same sizes, and values of its own."""
        inner = Walk(self.program, self.spec, self.shown, self.locate)
        inner.symbols = self.symbols
        inner.bodies, inner.body_names = self.bodies, self.body_names
        return inner

    def fail(self, code: str, node: fx.Node, message: str, cause: str, remedy: str) -> GenieError:
        """The error for a call, which names the user's line or else the module."""
        module = module_of(node)
        where = f"in module {module!r}" if module else "in the model's own forward"
        place = self.locate(node) or Place(file=self.shown)
        return GenieError(code, message, place, f"{where}: {cause}" if cause else where, remedy)

    def value(self, name: str, fake: torch.Tensor, storage: int) -> Value:
        """Note a value of `fake`'s type. Raises Unsupported."""
        made = Value(name, type_text(fake, self.symbols), storage)
        self.values[name] = made
        return made


def module_of(node: fx.Node) -> str:
    """Dotted path of the module whose forward made the call; "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = str(next(reversed(stack.values()))[0])
    return "" if path.startswith("_empty_nn_module_stack") else path.split("@")[0]
