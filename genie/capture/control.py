"""torch.cond, while_loop and scan: their sub-graphs become bodies of the graph.

Export gives each branch as a module of its own, called with everything that it reads: operands,
then the parameters and the sizes that it closes over. Sizes are expressions wherever they are used,
so that they need not be passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from genie.capture.encode import Unsupported
from genie.capture.inline import inline_regions
from genie.capture.inputs import graph_inputs
from genie.capture.walk import Walk, module_of
from genie.graph.ir import Body, Node, Output, Value
from genie.graph.liveness import live_nodes
from genie_schemas.args import Arg, ProgramRef, Ref
from genie_schemas.errors import GenieError, InternalError
from genie_schemas.names import clean

KINDS = {"cond": "hop.cond", "while_loop": "hop.while_loop", "scan": "hop.scan"}

WalkNodes = Callable[[Walk, fx.Graph], None]


def kind_of(node: fx.Node) -> str | None:
    """The plan's operator for a call of control flow; None for any other call."""
    if not isinstance(node.target, torch._ops.HigherOrderOperator):
        return None
    return KINDS.get(node.target.__name__)


def names_a_body(node: fx.Node) -> bool:
    """Whether a `get_attr` node is there for calls of control flow alone."""
    return bool(node.users) and all(kind_of(user) for user in node.users)


def lower(walk: Walk, node: fx.Node, walk_nodes: WalkNodes) -> None:
    """Append the call, and its sub-graphs as bodies. Raises GenieError GEN0223."""
    kind, module = kind_of(node), module_of(node)
    if kind is None:
        raise InternalError(f"{node.target} is no control flow", stage="capture")
    args: list[Arg] = []
    graphs: list[fx.GraphModule] = []
    operands: list[Any] = []
    for arg in node.args:
        if isinstance(arg, fx.Node) and arg.op == "get_attr":
            graphs.append(getattr(node.graph.owning_module, str(arg.target)))
            args.append(None)
        elif isinstance(arg, list | tuple):
            operands += arg
            args.append(tuple(_ref(walk, node, item) for item in arg if not _is_size(item)))
        else:
            args.append(_ref(walk, node, arg))
    base = clean(f"{module}.{kind[4:]}" if module else kind[4:])
    bodies = []
    for graph in graphs:
        body = _body(walk, node, graph, operands, walk_nodes, module)
        name = walk.body_names(base)
        walk.bodies.append(Body(name, *body))
        bodies.append(name)
    programs = iter(bodies)
    args = [ProgramRef(next(programs)) if arg is None else arg for arg in args]
    results = []
    for fake in node.meta["val"]:
        if not isinstance(fake, torch.Tensor):
            raise _refused(walk, node, "it returns something else than tensors")
        try:
            storage = walk.storages.of(fake, [], copies=True)
            results.append(walk.value(walk.namer(base), fake, storage))
        except Unsupported as error:
            raise _refused(walk, node, f"it returns {error}") from None
    walk.tuples[node] = tuple(Ref(v.name) for v in results)
    walk.nodes.append(Node(kind, tuple(args), (), tuple(results), module))


def _is_size(item: Any) -> bool:
    return isinstance(item, fx.Node) and isinstance(item.meta.get("val"), torch.SymInt)


def _ref(walk: Walk, node: fx.Node, item: Any) -> Arg:
    found = walk.refs.get(item) if isinstance(item, fx.Node) else None
    if not isinstance(found, Ref):
        raise _refused(walk, node, f"it is called with {item}, which is no tensor")
    return found


def _refused(walk: Walk, node: fx.Node, cause: str) -> GenieError:
    return walk.fail(
        "GEN0223",
        node,
        f"this call of {kind_of(node)} is not supported",
        cause,
        "pass and return tensors of one shape, or write the choice with torch.where",
    )


def _body(
    walk: Walk,
    call: fx.Node,
    module: fx.GraphModule,
    operands: list[Any],
    walk_nodes: WalkNodes,
    path: str,
) -> tuple[tuple[Value, ...], tuple[Node, ...], tuple[str, ...]]:
    inline_regions(module)
    inner = walk.inside()
    inputs: list[Value] = []
    places = graph_inputs(module.graph)
    for place, operand in zip(places, operands, strict=True):
        if _is_size(operand):
            continue
        fake = place.meta["val"]
        try:
            value = inner.value(inner.namer("x"), fake, inner.storages.fresh(fake))
        except Unsupported as error:
            raise _refused(walk, call, f"it is called with {error}") from None
        inputs.append(value)
        inner.refs[place] = Ref(value.name)
    walk_nodes(inner, module.graph)
    if inner.draws.any:
        raise _refused(walk, call, "it draws random numbers within a branch or turn")
    if inner.ragged:
        raise _refused(walk, call, "the size of a tensor within it depends on data")
    given = {v.storage for v in inputs}
    for storage, (op, _) in inner.written.items():
        if storage in given:
            raise _refused(walk, call, f"{op} inside it writes to a tensor from outside")
    outputs = _outputs(walk, call, inner, module, {v.name for v in inputs}, path)
    live = live_nodes(inner.nodes, [Output(n, n) for n in outputs], inner.values)
    return tuple(inputs), tuple(live), outputs


def _outputs(
    walk: Walk, call: fx.Node, inner: Walk, module: fx.GraphModule, given: set[str], path: str
) -> tuple[str, ...]:
    """Names of what a body returns; what it only passes on, or returns twice, is cloned."""
    found = next(n for n in module.graph.nodes if n.op == "output").args[0]
    names: list[str] = []
    for item in [found] if isinstance(found, fx.Node) else list(found):
        ref = inner.refs.get(item) if isinstance(item, fx.Node) else None
        if not isinstance(ref, Ref):
            raise _refused(walk, call, "a branch returns something else than tensors")
        name = ref.name
        if name in given or name in names:
            fake = item.meta["val"]
            copy = inner.value(inner.namer("clone"), fake, inner.storages.of(fake, [], copies=True))
            inner.nodes.append(Node("aten.clone.default", (ref,), (), (copy,), path))
            name = copy.name
        names.append(name)
    return tuple(names)


def sub_graph_error(walk: Walk, node: fx.Node) -> GenieError:
    """The error for a graph within the graph; `node` names it."""
    user = next(iter(node.users), node)
    if getattr(user.target, "__name__", "") == "wrap_with_autocast":
        return walk.fail(
            "GEN0223",
            user,
            "the forward turns autocast on",
            "which kernels then run is decided while running, not in the graph",
            "cast in the entry, with model.bfloat16() or model.half(), or cast the tensors there",
        )
    if isinstance(getattr(node.graph.owning_module, str(node.target), None), torch.Tensor):
        return walk.fail(
            "GEN0223",
            user,
            "a branch or turn reads a tensor of the model that it is not given",
            "called as torch.ops.higher_order, control flow takes nothing from around it",
            "pass the tensor as an operand; torch.cond, and while_loop and scan of "
            "torch._higher_order_ops, do so by themselves",
        )
    return walk.fail(
        "GEN0223",
        node,
        f"the forward calls {getattr(user.target, '__name__', user.target)}, with a sub-graph",
        f"{node.target} is a graph of its own; plans carry those of cond, while_loop and scan",
        "write it with torch.cond, torch.where or plain operators",
    )
