"""From an exported program to the graph IR and the tensors that it reads.

The walk goes once over the fx graph. Calls that compute nothing on tensors disappear: sizes become
expressions over the spec's dimensions, assertions were proved by export, `detach` and inactive
dropout are their input. What remains is one `Node` a call, with values named by module.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from genie.capture.aliases import Storages
from genie.capture.control import kind_of, lower, names_a_body
from genie.capture.encode import Symbols, Unsupported, encode, stride_order, type_text
from genie.capture.exporter import positional_only
from genie.capture.inline import inline_regions
from genie.capture.lower import SAME_AS
from genie.capture.outputs import output_names
from genie.capture.state import lost, updates
from genie.graph.ir import Body, Constant, Graph, Input, Node, Output, Value
from genie.graph.legality import mutated
from genie.graph.liveness import live_nodes
from genie_schemas import constants, optable
from genie_schemas.args import Arg, Ref
from genie_schemas.errors import GenieError, Place
from genie_schemas.names import Namer, clean
from genie_schemas.spec import Spec

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


@dataclass(frozen=True)
class Captured:
    """A graph and its tensors: `tensors` maps a constant's key to its dense storage-order bytes."""

    graph: Graph
    tensors: dict[str, torch.Tensor]


class _Walk:
    def __init__(self, program: ExportedProgram, spec: Spec, shown: str, locate: Locate) -> None:
        self.program = program
        self.spec = spec
        self.shown = shown
        self.locate = locate
        self.namer = Namer()
        self.symbols = Symbols({})
        self.storages = Storages()
        self.refs: dict[fx.Node, Arg] = {}
        self.tuples: dict[fx.Node, tuple[Arg, ...]] = {}
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.written: dict[int, tuple[str, fx.Node]] = {}
        """Storage → the operator that first wrote to it, and its call."""
        self.bodies: list[Body] = []
        self.body_names = Namer()

    def inside(self) -> _Walk:
        """A walk for a graph within this one: the same sizes, and values of its own."""
        inner = _Walk(self.program, self.spec, self.shown, self.locate)
        inner.symbols = self.symbols
        inner.bodies, inner.body_names = self.bodies, self.body_names
        return inner

    def fail(self, code: str, node: fx.Node, message: str, cause: str, remedy: str) -> GenieError:
        module = module_of(node)
        where = f"in module {module!r}" if module else "in the model's own forward"
        place = self.locate(node) or Place(file=self.shown)
        return GenieError(code, message, place, f"{where}: {cause}" if cause else where, remedy)

    def value(self, name: str, fake: torch.Tensor, storage: int) -> Value:
        made = Value(name, type_text(fake, self.symbols), storage)
        self.values[name] = made
        return made


Locate = Callable[[fx.Node], Place | None]


def module_of(node: fx.Node) -> str:
    """Dotted path of the module whose forward made the call; "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = str(next(reversed(stack.values()))[0])
    return "" if path.startswith("_empty_nn_module_stack") else path.split("@")[0]


def capture(
    model: nn.Module, program: ExportedProgram, spec: Spec, shown: str, locate: Locate
) -> Captured:
    """Turn an exported program into the graph IR.

    `locate` finds the user's line of a call, for errors. Raises GenieError GEN0223 … GEN0227.
    """
    inline_regions(program.graph_module)
    walk = _Walk(program, spec, shown, locate)
    inputs = _inputs(walk, model)
    used = {n.name for n in program.graph.nodes if n.op == "placeholder" and n.users}
    first = _first_names(model, program)
    names = {
        item.arg.name: (item.kind, first.get(str(item.target), str(item.target)))
        for item in program.graph_signature.input_specs
        if item.kind in _HELD and item.arg.name in used
    }
    held = _constants(walk, names)
    _nodes(walk, program.graph)
    outputs = _outputs(walk)
    _no_lost_mutation(walk, held)
    outputs += updates(held, walk.written, [o.name for o in outputs])
    outputs = _drop_fresh_copies(walk, outputs)
    walk.nodes = live_nodes(walk.nodes, outputs, walk.values)
    used = {name for node in walk.nodes for name in node.reads()}
    used.update(o.value for o in outputs if o.value is not None)
    kept, tensors = _dedupe([c for c in held if c[0].name in used])
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
    )
    return Captured(graph, tensors)


def _nodes(walk: _Walk, graph: fx.Graph) -> None:
    """Append every call of a graph to the walk's nodes."""
    for node in graph.nodes:
        if node.op == "call_function":
            _call(walk, node)
        elif node.op == "get_attr" and not names_a_body(node):
            raise _sub_graph(walk, node)


def _sub_graph(walk: _Walk, node: fx.Node) -> GenieError:
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
    return walk.fail(
        "GEN0223",
        node,
        "the forward uses control-flow operators or a sub-graph",
        f"{node.target} is a graph of its own",
        "write the branch with torch.where",
    )


def _inputs(walk: _Walk, model: nn.Module) -> list[Input]:
    """Inputs in the spec's order; learns which torch symbol is which dimension."""
    nodes = {n.name: n for n in walk.program.graph.nodes if n.op == "placeholder"}
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
    for name in walk.spec.inputs:
        walk.namer.reserve(name)
        node = found[name]
        storage = walk.storages.fresh(node.meta["val"])
        inputs.append(Input(walk.value(name, node.meta["val"], storage)))
        walk.refs[node] = Ref(name)
    return inputs


def _flat_names(walk: _Walk, model: nn.Module) -> list[str]:
    """Input names in the order of the exported placeholders: positional ones first."""
    _, kwargs = walk.program.call_spec.in_spec.children()
    return [*positional_only(model, walk.spec), *(str(name) for name in kwargs.context or ())]


def _first_names(model: nn.Module, program: ExportedProgram) -> dict[str, str]:
    """Name of a tensor → the first that the model has for it; export keeps the last of several."""
    held = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    first: dict[int, str] = {}
    for name, tensor in held:
        first.setdefault(id(tensor), name)
    return {name: first.get(id(tensor), name) for name, tensor in program.state_dict.items()}


_HELD = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "lifted",
}
_Held = tuple[Value, str, torch.Tensor]


def _constants(walk: _Walk, names: dict[str, tuple[InputKind, str]]) -> list[_Held]:
    """Parameters and buffers under their own names; lifted tensors under their user's module."""
    program = walk.program
    held: list[_Held] = []
    # Parameters and buffers have the first choice; lifted tensors are named after them.
    given = {
        node: walk.namer(clean(target))
        for node, (kind, target) in names.items()
        if kind != InputKind.CONSTANT_TENSOR
    }
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in names:
            continue
        kind, target = names[node.name]
        tensor = program.constants.get(target)
        if tensor is None:
            tensor = program.state_dict[target]
        if kind == InputKind.CONSTANT_TENSOR:
            user = next(iter(node.users), None)
            module = module_of(user) if user is not None else ""
            name = walk.namer(clean(f"{module}.constant" if module else "constant"))
        else:
            name = given[node.name]
        fake = node.meta["val"]
        try:
            if fake.dtype == torch.complex128:
                raise Unsupported("safetensors files hold no complex128")
            value = walk.value(name, fake, walk.storages.fresh(fake))
        except Unsupported as error:
            raise GenieError(
                "GEN0223",
                f"the model's tensor {target!r} cannot be carried by a plan",
                Place(file=walk.shown),
                str(error),
                "convert it to a dense tensor of a common dtype",
            ) from None
        walk.refs[node] = Ref(name)
        held.append((value, _HELD[kind], tensor.detach()))
    return held


def _call(walk: _Walk, node: fx.Node) -> None:
    """One call_function: dropped, passed through, or made a Node."""
    fake = node.meta.get("val")
    if kind_of(node):
        lower(walk, node, _nodes, module_of(node))
        return
    if node.target is operator.getitem:
        source, index = node.args
        if isinstance(source, fx.Node) and source in walk.tuples and isinstance(index, int):
            walk.refs[node] = walk.tuples[source][index]
            return
    if isinstance(fake, torch.SymInt):
        return  # a size: encoded as an expression where it is used
    name = str(node.target) if isinstance(node.target, torch._ops.OpOverload) else ""
    if name in _PROVED or (not name and isinstance(fake, torch.SymBool | bool)):
        return
    if isinstance(fake, torch.SymBool | torch.SymFloat | bool | int | float):
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


def _inactive(node: fx.Node, train: int) -> bool:
    args = node.args
    return len(args) > train and args[train] is False


def _operator(walk: _Walk, node: fx.Node, name: str, fake: Any) -> None:
    info = optable.lookup(name)
    shown = name or getattr(node.target, "__name__", str(node.target))
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
            "write it with other operators, or register the model part without it",
        )
    bound = {a.name: v for a, v in zip(info.args, node.args, strict=False)} | dict(node.kwargs)
    if info.draws(bound):
        raise walk.fail(
            "GEN0225",
            node,
            f"{shown} draws random numbers",
            "a retry would draw others",
            "call .eval() on the model in the entry, or pass the noise as an input",
        )
    fakes = list(fake) if isinstance(fake, list | tuple) else [fake]
    if any(isinstance(f, torch.Tensor) and _unbacked(f, walk.symbols) for f in fakes):
        raise walk.fail(
            "GEN0226",
            node,
            f"the size of {shown}'s result depends on data",
            "memory for it cannot be planned",
            "use torch.where or a fixed-size operator such as topk",
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
    walk.nodes.append(Node(name, args, kwargs, tuple(results), module_of(node)))
    for written in mutated(walk.nodes[-1]):
        walk.written.setdefault(walk.values[written].storage, (name, node))


def _returns_its_operand(info: optable.OpInfo) -> bool:
    base = info.name.split(".")[1]
    in_place = base.startswith("__i") if base.endswith("__") else base.endswith("_")
    return in_place and info.returns == ("Tensor",) and info.args[0].writes


def _results(
    walk: _Walk, node: fx.Node, info: optable.OpInfo, fakes: list[Any]
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
        except (Unsupported, NotImplementedError) as error:
            # Tensors without a storage: wrapped by torch.func, or of another layout.
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


def _operands(walk: _Walk, node: fx.Node) -> list[Ref]:
    refs = (walk.refs.get(n) for n in node.all_input_nodes)
    return [r for r in refs if isinstance(r, Ref)]


def _unbacked(fake: torch.Tensor, symbols: Symbols) -> bool:
    sizes: list[Any] = [size for size in fake.shape if isinstance(size, torch.SymInt)]
    free = {s for size in sizes for s in size.node.expr.free_symbols}
    return not free <= set(symbols.names)


def _no_lost_mutation(walk: _Walk, held: list[_Held]) -> None:
    """Refuse graphs that write to a lifted constant: export would lose it in silence."""
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


def _drop_fresh_copies(walk: _Walk, outputs: list[Output]) -> list[Output]:
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


def _outputs(walk: _Walk) -> list[Output]:
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
        if isinstance(arg, fx.Node) and isinstance(arg.meta.get("val"), torch.SymInt):
            outputs.append(Output(name, None, walk.symbols.expr(arg.meta["val"])))
        elif isinstance(arg, fx.Node):
            if arg not in walk.refs:
                raise walk.fail(
                    "GEN0223",
                    arg,
                    f"the output {name} is a number that follows from sizes",
                    "outputs are tensors, whole numbers that follow from sizes, and constants",
                    "compute it from the shape of an output instead",
                )
            ref = walk.refs[arg]
            outputs.append(Output(name, ref.name if isinstance(ref, Ref) else None))
        elif isinstance(item.arg, ConstantArgument) and item.arg.value is not None:
            outputs.append(Output(name, None, encode(item.arg.value, walk.symbols, {})))
    if not any(o.value is not None for o in outputs):
        raise GenieError(
            "GEN0227",
            "the forward returns no tensor",
            Place(file=walk.shown),
            remedy="return the tensors that callers want",
        )
    return outputs


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's elements in storage order, row-major: what a plan's constants hold."""
    # Conjugate and negative views keep their bytes unresolved: a plan holds what they stand for.
    plain = tensor.resolve_conj().resolve_neg()
    return plain.permute(stride_order(plain)).contiguous()


def _dedupe(held: list[_Held]) -> tuple[list[Constant], dict[str, torch.Tensor]]:
    """Give tied and equal tensors one key: that of the first of them in the model's order."""
    keys: dict[tuple[str, str], str] = {}
    tensors: dict[str, torch.Tensor] = {}
    made: dict[str, Constant] = {}
    for value, kind, tensor in held:
        plain = dense(tensor)
        raw = (
            plain.flatten().view(torch.uint8)
            if plain.numel()
            else plain.new_empty(0, dtype=torch.uint8)
        )
        digest = constants.digest(raw.numpy().data)
        key = keys.setdefault((value.type, digest), value.name)
        if key == value.name:
            tensors[key] = plain
        made[value.name] = Constant(value, kind, key, digest, raw.numel())
    return [made[value.name] for value, _, _ in held], tensors
