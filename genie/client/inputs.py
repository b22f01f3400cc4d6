"""Checking inputs against a plan, all at once, before anything is sent or run."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from genie.client.tensors import Array, Tensor, as_tensor, dense, storage
from genie_runtime.plans import called
from genie_schemas import canonical, constants
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.messages import GenerationRequest
from genie_schemas.plan import EntryInput, ExecutionPlan
from genie_schemas.types import DTYPES, TensorType, parse_type

__all__ = ["CheckedInputs", "check_inputs"]


@dataclass(frozen=True)
class CheckedInputs:
    """Inputs that fit: their tensors and types, and the size of every dimension of the plan."""

    tensors: Mapping[str, Tensor]
    types: Mapping[str, TensorType]
    dims: Mapping[str, int]

    def data(self, name: str) -> memoryview:
        """The bytes of an input, dense in the order of its type."""
        return dense(self.tensors[name], self.types[name].order)

    def digest(self, generation: GenerationRequest | None = None) -> str:
        """One digest over names, dtypes, shapes and bytes: what a run id is bound to.

        For a loop, how it samples is bound as well.
        """
        found: dict[str, Any] = {
            name: [
                self.types[name].dtype,
                list(tensor.shape),
                constants.digest(self.data(name)),
            ]
            for name, tensor in self.tensors.items()
        }
        if generation is not None:
            return canonical.digest({"inputs": found, "generation": generation.model_dump()})
        return canonical.digest(found)


def check_inputs(
    plan: ExecutionPlan,
    entrypoint: str,
    given: Mapping[str, Array | Tensor],
    elsewhere: Collection[str] = (),
) -> CheckedInputs:
    """Check names, dtypes, shapes, ranges, and dimensions that inputs share.

    Raises GenieErrors with everything that is wrong (GEN0400 to GEN0405), GEN0407 for an unknown
    entry point. Dimensions that no input binds take their minimum. Inputs named in `elsewhere` are
    not asked for: the node has them.
    """
    inputs = called(plan, entrypoint).inputs
    declared = {item.name: item for item in inputs if item.name not in elsewhere}
    errors = _names(declared, given)
    found: dict[str, tuple[int, str]] = {}
    tensors: dict[str, Tensor] = {}
    types: dict[str, TensorType] = {}
    for name, item in declared.items():
        if name in given:
            tensors[name] = as_tensor(given[name])
            types[name] = parse_type(item.type)
            errors += _one(item, types[name], tensors[name], found, plan)
    if errors:
        raise GenieErrors(errors)
    dims = {name: span.min for name, span in plan.dims.items()}
    dims |= {name: size for name, (size, _) in found.items()}
    errors = _derived(tensors, types, dims)
    if errors:
        raise GenieErrors(errors)
    return CheckedInputs(tensors, types, dims)


def _names(
    declared: Mapping[str, EntryInput], given: Mapping[str, Array | Tensor]
) -> list[GenieError]:
    errors = []
    for name in declared.keys() - given.keys():
        errors.append(
            GenieError(
                "GEN0400",
                f"the input {name!r} ({declared[name].type}) is missing",
                remedy=f"give it with --input {name}=FILE.npy",
                context={"input": name},
            )
        )
    for name in given.keys() - declared.keys():
        close = difflib.get_close_matches(name, declared, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        errors.append(
            GenieError(
                "GEN0401",
                f"the plan takes no input {name!r}",
                remedy=f"{hint}it takes: {', '.join(sorted(declared)) or 'none'}",
                context={"input": name},
            )
        )
    return sorted(errors, key=lambda e: (e.code, e.message))


def _one(
    item: EntryInput,
    type_: TensorType,
    tensor: Tensor,
    found: dict[str, tuple[int, str]],
    plan: ExecutionPlan,
) -> list[GenieError]:
    errors = []
    wanted = DTYPES[type_.dtype][0]
    held = storage(type_.dtype)
    if tensor.dtype != wanted or tensor.array.dtype != held:
        has = tensor.dtype if tensor.dtype != wanted else f"{tensor.array.dtype} for {wanted}"
        takes = wanted if str(held) == wanted else f"{wanted}, as Tensor of its bits in {held}"
        errors.append(
            GenieError(
                "GEN0402",
                f"the input {item.name!r} has dtype {has}; the plan takes {takes}",
                remedy=f"convert it to {wanted}, or change the dtype in the spec and compile again",
                context={"input": item.name},
            )
        )
    if len(tensor.shape) != len(type_.shape):
        return [*errors, _shape(item, tensor, f"{len(tensor.shape)} dimensions")]
    for axis, (size, expr) in enumerate(zip(tensor.shape, type_.shape, strict=True)):
        if not expr.names:
            if expr.evaluate({}) != size:
                errors.append(_shape(item, tensor, f"{size} at dimension {axis}"))
        elif expr.text in plan.dims:
            errors += _dim(expr.text, size, item.name, found, plan)
    return errors


def _shape(item: EntryInput, tensor: Tensor, what: str) -> GenieError:
    return GenieError(
        "GEN0403",
        f"the input {item.name!r} has shape {list(tensor.shape)}; the plan takes {item.type}",
        cause=f"it has {what}",
        remedy="reshape it, or change the shape in the spec and compile again",
        context={"input": item.name},
    )


def _dim(
    name: str, size: int, source: str, found: dict[str, tuple[int, str]], plan: ExecutionPlan
) -> list[GenieError]:
    known = found.get(name)
    if known is not None and known[0] != size:
        return [
            GenieError(
                "GEN0405",
                f"the inputs {known[1]!r} and {source!r} disagree on {name}: {known[0]} and {size}",
                remedy="give both the same size there",
                context={"dim": name},
            )
        ]
    found[name] = (size, source)
    span = plan.dims[name]
    if span.min <= size <= span.max:
        return []
    return [
        GenieError(
            "GEN0404",
            f"dimension {name} is {size} in the input {source!r}; "
            f"its range is {span.min} to {span.max}",
            remedy=f"split the work, or widen dims.{name} in the spec and compile again",
            context={"dim": name, "input": source},
        )
    ]


def _derived(
    tensors: Mapping[str, Tensor], types: Mapping[str, TensorType], dims: Mapping[str, int]
) -> list[GenieError]:
    """Dimensions written as expressions ("2*seq") must fit those that they are made of."""
    errors = []
    for name, tensor in tensors.items():
        sizes = types[name].sizes(dims)
        if sizes != tensor.shape:
            errors.append(
                GenieError(
                    "GEN0405",
                    f"the input {name!r} has shape {list(tensor.shape)}; with "
                    + ", ".join(f"{d} = {dims[d]}" for d in sorted(types[name].names))
                    + f" it must be {list(sizes)}",
                    remedy="make the sizes agree",
                    context={"input": name},
                )
            )
    return errors
