"""The calls of an exported graph: dropped, passed through, made nodes, or refused."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from genie.capture.control import kind_of, lower, names_a_body, sub_graph_error
from genie.capture.encode import Unsupported, encode
from genie.capture.lower import SAME_AS
from genie.capture.outputs import only_returned
from genie.capture.ragged import axes, learn
from genie.capture.walk import Walk, module_of
from genie.graph.ir import Node, Value
from genie.graph.legality import mutated
from genie_schemas import optable
from genie_schemas.args import Ref
from genie_schemas.names import clean

__all__ = ["capture_nodes"]

_DROPOUTS = {
    "aten.dropout.default": 2,
    "aten.alpha_dropout.default": 2,
    "aten.feature_dropout.default": 2,
    "aten.feature_alpha_dropout.default": 2,
    "aten.dropout_.default": 2,
}
"""Operators that return their input itself when this argument (train) is False."""

_PASS_THROUGH = {
    "aten.detach.default",
    "aten.detach_.default",
    "aten.alias.default",
    "aten.lift.default",
}

_METADATA_IN_PLACE = {
    f"aten.{name}_.{overload}": f"aten.{name}.{overload}"
    for name, overload in (
        ("unsqueeze", "default"),
        ("squeeze", "default"),
        ("squeeze", "dim"),
        ("squeeze", "dims"),
        ("t", "default"),
        ("swapaxes", "default"),
        ("swapdims", "default"),
        ("as_strided", "default"),
    )
} | {"aten.transpose_.default": "aten.transpose.int"}
"""In-place operators that change no data but how it is viewed, and the view that does the same."""

_PROVED = {
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten._assert_async.msg",
    "aten._assert_async.default",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
}


def capture_nodes(walk: Walk, graph: fx.Graph) -> None:
    """Every call of a graph. Raises GenieError GEN0220, GEN0223, GEN0225, GEN0226."""
    for node in graph.nodes:
        if node.op == "call_function":
            _call(walk, node)
        elif node.op == "get_attr" and not names_a_body(node):
            raise sub_graph_error(walk, node)


def _call(walk: Walk, node: fx.Node) -> None:
    """One call_function: dropped, passed through, or made a Node."""
    fake = node.meta.get("val")
    if kind_of(node):
        lower(walk, node, capture_nodes)
        return
    if node.target is operator.getitem:
        source, index = node.args
        if isinstance(source, fx.Node) and source in walk.tuples and isinstance(index, int):
            walk.refs[node] = walk.tuples[source][index]
            return
    name = str(node.target) if isinstance(node.target, torch._ops.OpOverload) else ""
    if name == "aten.item.default" and only_returned(node):
        _number(walk, node)
        return
    if isinstance(fake, torch.SymInt) and name != "aten.item.default":
        return  # a size: encoded as an expression where it is used
    if name in _PROVED or (not name and isinstance(fake, torch.SymBool | bool)):
        return
    if isinstance(fake, torch.SymInt | torch.SymBool | torch.SymFloat | bool | int | float):
        raise walk.fail(
            "GEN0220"
            if name in ("aten.item.default", "aten._local_scalar_dense.default")
            else "GEN0223",
            node,
            f"{name or getattr(node.target, '__name__', 'a call')} takes a number out of a tensor "
            "or a size",
            "plans compute with tensors and integer sizes",
            "keep the value in a tensor",
        )
    if name in _PASS_THROUGH or (name in _DROPOUTS and _inactive(node, _DROPOUTS[name])):
        walk.refs[node] = walk.refs[node.args[0]]  # type: ignore[index]
        return
    name = SAME_AS.get(name) or _METADATA_IN_PLACE.get(name, name)
    _operator(walk, node, name, fake)


def _number(walk: Walk, node: fx.Node) -> None:
    """A number that forward takes out of a tensor and returns: the tensor, of no dimensions."""
    source = walk.refs[node.args[0]]  # type: ignore[index]
    assert isinstance(source, Ref)  # noqa: S101 - item's argument is a tensor
    whole = walk.values[source.name]
    value = Value(walk.namer("item"), f"{whole.type.partition('[')[0]}[]", whole.storage)
    walk.values[value.name] = value
    walk.refs[node] = Ref(value.name)
    walk.nodes.append(Node("aten.view.default", (source, ()), (), (value,), module_of(node)))


def _inactive(node: fx.Node, train: int) -> bool:
    args = node.args
    return len(args) > train and args[train] is False


def _operator(walk: Walk, node: fx.Node, name: str, fake: Any) -> None:
    info = optable.lookup(name)
    shown = name or getattr(node.target, "__name__", str(node.target))
    if getattr(node.target, "__module__", "") == "torch._functorch.predispatch":
        shown = "torch.vmap"
    if info is None and not name:
        raise walk.fail(
            "GEN0223",
            node,
            f"the call of {shown} is not supported",
            "torch.export leaves Python calls in the graph for torch.vmap and torch.func",
            "write it with tensor operators, such as broadcasting instead of vmap",
        )
    if info is None:
        raise walk.fail(
            "GEN0223",
            node,
            f"the operator {shown} is not supported",
            "it is not on the plan's allow-list",
            "write it with other operators, or leave that part out of the model and run it before "
            "or after",
        )
    bound = {a.name: v for a, v in zip(info.args, node.args, strict=False)} | dict(node.kwargs)
    more = walk.draws.keyword(info, bound)
    if more is None:
        raise walk.fail(
            "GEN0225",
            node,
            f"{shown} draws random numbers",
            "a retry would draw others",
            "call .eval() on the model in the entry, pass the noise as an input, or write "
            "random: seeded in the spec, so that each run takes a seed",
        )
    fakes = list(fake) if isinstance(fake, list | tuple) else [fake]
    if not learn(fakes, name, node, walk.symbols):
        raise walk.fail(
            "GEN0226",
            node,
            f"the size of {shown}'s result depends on data",
            "how large it can be is not known, so that memory for it cannot be planned",
            "bound it, with torch._check(y.shape[0] <= 100); or use torch.where, or a fixed-size "
            "operator such as topk",
        )
    try:
        args = tuple(encode(a, walk.symbols, walk.refs) for a in node.args)
        kwargs = tuple((k, encode(v, walk.symbols, walk.refs)) for k, v in node.kwargs.items())
    except Unsupported as error:
        remedy = "write it with other operators"
        raise walk.fail("GEN0223", node, f"{shown} is called with {error}", "", remedy) from None
    if _returns_its_operand(info):
        # x.relu_() is x afterwards: later calls read x, whose content the call changed.
        walk.refs[node] = args[0]
        results: list[Value | None] = [None]
    else:
        results = _results(walk, node, info, fakes)
    walk.nodes.append(Node(name, args, (*kwargs, *more), tuple(results), module_of(node)))
    for written in mutated(walk.nodes[-1]):
        walk.written.setdefault(walk.values[written].storage, (name, node))


def _returns_its_operand(info: optable.OpInfo) -> bool:
    base = info.name.split(".")[1]
    in_place = base.startswith("__i") if base.endswith("__") else base.endswith("_")
    return in_place and info.returns == ("Tensor",) and info.args[0].writes


def _results(
    walk: Walk, node: fx.Node, info: optable.OpInfo, fakes: list[Any]
) -> list[Value | None]:
    module = module_of(node)
    base = clean(f"{module}.{info.name.split('.')[1]}" if module else info.name.split(".")[1])
    several = info.returns_list or len(info.returns) > 1
    used = {
        user.args[1]
        for user in node.users
        if several and user.target is operator.getitem and user.users
    }
    operands = [walk.values[r.name] for r in _operands(walk, node)]
    results: list[Value | None] = []
    for i, fake in enumerate(fakes):
        if not isinstance(fake, torch.Tensor) or (several and i not in used):
            results.append(None)
            continue
        copies = info.name == "aten.lift_fresh_copy.default"
        try:
            storage = walk.storages.of(fake, operands, copies=copies)
            value = walk.value(walk.namer(base), fake, storage)
            if ragged := axes(fake, walk.symbols):
                walk.ragged[value.name] = (ragged, module)
        except Unsupported as error:
            remedy = "use a dense tensor of a common dtype"
            message = f"{info.name} returns {error}"
            raise walk.fail("GEN0223", node, message, "", remedy) from None
        results.append(value)
    refs = tuple(None if v is None else Ref(v.name) for v in results)
    if several:
        walk.tuples[node] = refs
    elif refs:
        walk.refs[node] = refs[0]
    return results if info.returns else []


def _operands(walk: Walk, node: fx.Node) -> list[Ref]:
    refs = (walk.refs.get(n) for n in node.all_input_nodes)
    return [r for r in refs if isinstance(r, Ref)]
