"""The model's own tensors: their names, and which of them are stored once."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from genie.capture.encode import Unsupported, stride_order
from genie.capture.inputs import graph_inputs
from genie.capture.numbers import check_numbers
from genie.capture.walk import Walk, module_of
from genie.graph.ir import Constant, Node, Value
from genie_schemas import constants
from genie_schemas.args import Ref
from genie_schemas.errors import GenieError, Place
from genie_schemas.names import clean

__all__ = ["HELD", "Held", "capture_constants", "dedupe", "dense", "first_names"]

HELD = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "lifted",
}
"""What a plan calls the kinds of tensors that a model has."""

Held = tuple[Value, str, torch.Tensor]
"""A tensor of the model's with its value and its kind."""


def first_names(model: nn.Module, program: ExportedProgram) -> dict[str, str]:
    """Name of a tensor → the first that the model has for it; export keeps the last of several."""
    held = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    first: dict[int, str] = {}
    for name, tensor in held:
        first.setdefault(id(tensor), name)
    return {name: first.get(id(tensor), name) for name, tensor in program.state_dict.items()}


def capture_constants(walk: Walk, names: dict[str, tuple[InputKind, str]]) -> list[Held]:
    """Parameters and buffers under their own names; lifted tensors under their user's module."""
    program = walk.program
    held: list[Held] = []
    # Parameters and buffers have the first choice; lifted tensors are named after them.
    given = {
        node: walk.namer(clean(target))
        for node, (kind, target) in names.items()
        if kind != InputKind.CONSTANT_TENSOR
    }
    for node in graph_inputs(program.graph):
        if node.name not in names:
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
        tensor = tensor.detach()
        check_numbers(walk, node, target, kind, tensor)
        wide = fake.dtype == torch.complex128
        try:
            storage = walk.storages.fresh(fake)
            if wide:
                # safetensors files hold no complex128: its parts, seen as what they are.
                tensor = torch.view_as_real(tensor.resolve_conj())
                seen = walk.value(walk.namer(f"{name}.complex"), fake, storage)
            value = walk.value(name, torch.view_as_real(fake) if wide else fake, storage)
        except Unsupported as error:
            raise GenieError(
                "GEN0223",
                f"the model's tensor {target!r} cannot be carried by a plan",
                Place(file=walk.shown),
                str(error),
                "convert it to a dense tensor of a common dtype",
            ) from None
        walk.refs[node] = Ref(name)
        if wide:
            view = Node("aten.view_as_complex.default", (Ref(name),), (), (seen,), "")
            walk.nodes.append(view)
            walk.refs[node] = Ref(seen.name)
        held.append((value, HELD[kind], tensor))
    return held


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's elements in storage order, row-major: what a plan's constants hold."""
    # Conjugate and negative views keep their bytes unresolved: a plan holds what they stand for.
    plain = tensor.resolve_conj().resolve_neg()
    return plain.permute(stride_order(plain)).contiguous()


def dedupe(held: list[Held]) -> tuple[list[Constant], dict[str, torch.Tensor]]:
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
