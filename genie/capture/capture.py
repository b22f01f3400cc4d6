"""From an exported program to the graph IR and the tensors that it reads.

The walk goes once over the fx graph. Calls that compute nothing on tensors disappear: sizes become
expressions over the spec's dimensions, assertions were proved by export, `detach` and inactive
dropout are their input. What remains is one `Node` a call, with values named by module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from genie.capture.calls import capture_nodes
from genie.capture.encode import encode
from genie.capture.exporter import forward_place, positional_only
from genie.capture.inline import inline_regions
from genie.capture.inputs import graph_inputs
from genie.capture.outputs import output_names
from genie.capture.outs import without_out
from genie.capture.ragged import with_sizes
from genie.capture.randomness import SEED, SEED_TYPE
from genie.capture.state import lost, shared, updates
from genie.capture.tensors import HELD, Held, capture_constants, dedupe, first_names
from genie.capture.walk import Locate, Walk
from genie.graph.ir import Graph, Input, Output, Value
from genie.graph.liveness import live_nodes
from genie_schemas.args import Ref
from genie_schemas.errors import GenieError
from genie_schemas.spec import Spec

__all__ = ["Captured", "capture"]


@dataclass(frozen=True)
class Captured:
    """A graph and its tensors: `tensors` maps a constant's key to its dense storage-order bytes."""

    graph: Graph
    tensors: dict[str, torch.Tensor]


def capture(
    model: nn.Module,
    program: ExportedProgram,
    spec: Spec,
    shown: str,
    locate: Locate,
    states: Mapping[str, str] | None = None,
) -> Captured:
    """Turn an exported program into the graph IR.

    `locate` finds the user's line of a call, for errors; `states` are inputs whose memory lives on
    after the call, with the names that the plan has for them. Raises GenieError GEN0223 … GEN0227.
    """
    inline_regions(program.graph_module)
    without_out(program.graph)
    walk = Walk(program, spec, shown, locate)
    for name in (states or {}).values():
        walk.namer.reserve(name)
    inputs = _inputs(walk, model)
    used = {n.name for n in graph_inputs(program.graph) if n.users}
    first = first_names(model, program)
    names = {
        item.arg.name: (item.kind, first.get(str(item.target), str(item.target)))
        for item in program.graph_signature.input_specs
        if item.kind in HELD and item.arg.name in used
    }
    held = capture_constants(walk, names)
    capture_nodes(walk, program.graph)
    if walk.draws.any:
        walk.values[SEED] = Value(SEED, SEED_TYPE, walk.storages.apart())
        inputs.append(Input(walk.values[SEED]))
    outputs = with_sizes(walk, _outputs(walk, model))
    _no_lost_mutation(walk, held)
    outputs += updates(held, walk.written, [o.name for o in outputs])
    outputs = _drop_fresh_copies(walk, outputs)
    lasting = {i.value.storage for i in inputs if i.name in (states or {})}
    walk.nodes = live_nodes(walk.nodes, outputs, walk.values, lasting)
    used = {name for node in walk.nodes for name in node.reads()}
    used.update(o.value for o in outputs if o.value is not None)
    kept, tensors = dedupe([c for c in held if c[0].name in used])
    graph = Graph(
        spec.name,
        torch.__version__.split("+")[0],
        tuple((n, d.min, d.max) for n, d in sorted(spec.dims.items()) if d.min != d.max),
        tuple(inputs),
        tuple(kept),
        tuple(walk.nodes),
        tuple(outputs),
        tuple((path, type(m).__name__) for path, m in model.named_modules(remove_duplicate=False)),
        tuple(walk.bodies),
        ragged=tuple(n for node in walk.nodes for n in node.writes() if n in walk.ragged),
    )
    return Captured(graph, tensors)


def _inputs(walk: Walk, model: nn.Module) -> list[Input]:
    """Inputs in the spec's order; learns which torch symbol is which dimension."""
    nodes = {n.name: n for n in graph_inputs(walk.program.graph)}
    order = [
        item.arg.name
        for item in walk.program.graph_signature.input_specs
        if item.kind == InputKind.USER_INPUT
    ]
    found: dict[str, fx.Node] = {}
    for name, arg in zip(_flat_names(walk, model), order, strict=True):
        found[name] = nodes[arg]
        fake = nodes[arg].meta["val"]
        for size, given in zip(fake.shape, walk.spec.inputs[name].shape, strict=True):
            if isinstance(given, str) and isinstance(size, torch.SymInt):
                symbol = size.node.expr
                if symbol.is_Symbol:
                    walk.symbols.names.setdefault(symbol, given)
    inputs = []
    walk.namer.reserve(SEED)
    for name in walk.spec.inputs:
        walk.namer.reserve(name)
        node = found[name]
        storage = walk.storages.fresh(node.meta["val"])
        inputs.append(Input(walk.value(name, node.meta["val"], storage)))
        walk.refs[node] = Ref(name)
    return inputs


def _flat_names(walk: Walk, model: nn.Module) -> list[str]:
    """Input names in the order of the exported graph's: positional ones first."""
    _, kwargs = walk.program.call_spec.in_spec.children()
    return [*positional_only(model, walk.spec), *(str(name) for name in kwargs.context or ())]


def _no_lost_mutation(walk: Walk, held: list[Held]) -> None:
    """Refuse graphs whose change of a tensor would be lost in silence.

    That is so for a lifted constant, which has no name to hand the new value back under, and for
    two tensors of the model that are views of one memory.
    """
    found = lost(held, walk.written)
    if found is not None:
        value, op, node = found
        raise walk.fail(
            "GEN0224",
            node,
            f"the forward writes to the constant {value.name!r}",
            f"{op} changes it; it is no buffer of the model, so that the change would be lost",
            "make it a buffer with register_buffer: its new value is an output of the plan then",
        )
    both = shared(held, walk.written)
    if both is not None:
        one, other, op, node = both
        raise walk.fail(
            "GEN0230",
            node,
            f"the forward writes to memory that {one.name!r} and {other.name!r} share",
            f"{op} changes both of them; a plan holds each for itself, so that one would keep its "
            "old value",
            "register the whole tensor alone, and take the view of it in the forward",
        )


def _drop_fresh_copies(walk: Walk, outputs: list[Output]) -> list[Output]:
    """Read lifted constants themselves where nothing writes to their fresh copy."""
    names: dict[str, str] = {}
    kept = []
    for node in walk.nodes:
        result = node.results[0] if node.results else None
        if (
            node.op == "aten.lift_fresh_copy.default"
            and result is not None
            and result.storage not in walk.written
            and isinstance(node.args[0], Ref)
        ):
            names[result.name] = node.args[0].name
        else:
            kept.append(node.renamed(names))
    walk.nodes = kept
    return [dataclasses.replace(o, value=names.get(o.value or "", o.value)) for o in outputs]


def _outputs(walk: Walk, model: nn.Module) -> list[Output]:
    specs = walk.program.graph_signature.output_specs
    last = next(reversed(walk.program.graph.nodes))
    flat = list(last.args[0])
    user = [
        (item, arg)
        for item, arg in zip(specs, flat, strict=True)
        if item.kind == OutputKind.USER_OUTPUT
    ]
    names = output_names(walk.program, len(user))
    outputs = []
    for name, (item, arg) in zip(names, user, strict=True):
        if isinstance(arg, fx.Node) and arg in walk.refs:
            ref = walk.refs[arg]
            outputs.append(Output(name, ref.name if isinstance(ref, Ref) else None))
        elif isinstance(arg, fx.Node) and isinstance(arg.meta.get("val"), torch.SymInt):
            outputs.append(Output(name, None, walk.symbols.expr(arg.meta["val"])))
        elif isinstance(arg, fx.Node):
            raise walk.fail(
                "GEN0223",
                arg,
                f"the output {name} is a number that follows from sizes",
                "outputs are tensors, whole numbers that follow from sizes, and constants",
                "compute it from the shape of an output instead",
            )
        elif isinstance(item.arg, ConstantArgument) and item.arg.value is not None:
            outputs.append(Output(name, None, encode(item.arg.value, walk.symbols, {})))
    if not outputs:
        raise GenieError(
            "GEN0227",
            "the forward returns nothing",
            forward_place(model, walk.shown),
            remedy="return the tensors that callers want",
        )
    return outputs
