"""`torch.export` of the user's module under the spec's inputs, with its failures told apart."""

from __future__ import annotations

import difflib
import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from genie_schemas.errors import GenieError, GenieErrors, Place
from genie_schemas.errors.user_code import user_error, user_place
from genie_schemas.spec import Input, Spec


def example_inputs(spec: Spec) -> dict[str, torch.Tensor]:
    """Input name → a deterministic example at the dimensions' example sizes.

    Floats run through [-1, 1), integers through [low, high) of the spec; never random, so that a
    capture does not depend on a generator's state.
    """
    return {name: _example(item, spec) for name, item in spec.inputs.items()}


def _example(item: Input, spec: Spec) -> torch.Tensor:
    shape = [spec.dims[s].example if isinstance(s, str) else s for s in item.shape]
    dtype = getattr(torch, item.dtype)
    count = 1
    for size in shape:
        count *= size
    ramp = torch.arange(count, dtype=torch.int64)
    bounds = item.example_bounds
    if item.dtype == "bool":
        return torch.ones(shape, dtype=torch.bool)
    if bounds is not None:
        low, high = bounds
        return (low + ramp % max(1, high - low)).reshape(shape).to(dtype)
    return ((ramp * 37 % 256).to(torch.float32) / 128 - 1).reshape(shape).to(dtype)


def check_parameters(model: nn.Module, spec: Spec, shown: str) -> None:
    """Compare the spec's inputs with forward's parameters; GEN0206 for every difference."""
    forward = type(model).forward
    parameters = inspect.signature(model.forward).parameters
    code = getattr(forward, "__code__", None)
    place = Place(file=Path(code.co_filename).name, line=code.co_firstlineno) if code else None
    names = [
        n
        for n, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY)
    ]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    errors = []
    for name in spec.inputs:
        if name not in names and not takes_any:
            close = difflib.get_close_matches(name, names, 1)
            errors.append(
                GenieError(
                    "GEN0206",
                    f"forward has no parameter {name!r}",
                    place,
                    f"it takes: {', '.join(names) or 'nothing'}",
                    f"did you mean {close[0]!r}? Rename the input in the spec"
                    if close
                    else "name the spec's inputs as forward's parameters",
                )
            )
    for name in names:
        parameter = parameters[name]
        if name not in spec.inputs and parameter.default is parameter.empty:
            message = f"forward needs {name!r}, which the spec's inputs do not give"
            remedy = f"add {name!r} under inputs in the spec, with dtype and shape"
            errors.append(GenieError("GEN0206", message, place, remedy=remedy))
    if errors:
        raise GenieErrors(errors)


def export(model: nn.Module, spec: Spec, path: Path, shown: str) -> ExportedProgram:
    """Export the forward to training IR with the spec's dynamic dimensions.

    Inference only: gradients are off, which also keeps `torch.no_grad()` regions in line.
    Raises GenieError GEN0202, GEN0206, GEN0220, GEN0221, GEN0222, GEN0226.
    """
    check_parameters(model, spec, shown)
    dims = {
        name: Dim(name, min=dim.min, max=dim.max)
        for name, dim in spec.dims.items()
        if dim.min != dim.max
    }
    dynamic = {
        name: {i: dims[s] for i, s in enumerate(item.shape) if isinstance(s, str) and s in dims}
        for name, item in spec.inputs.items()
    }
    args, kwargs, shapes = _call(model, example_inputs(spec), dynamic)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise diagnose(error, model, (args, kwargs), path, shown, spec) from error


def _call(
    model: nn.Module, inputs: dict[str, torch.Tensor], dynamic: dict[str, dict[int, Any]]
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional-only parameters by position, the others by name."""
    parameters = inspect.signature(model.forward).parameters
    first = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY and n in inputs]
    args = tuple(inputs[n] for n in first)
    kwargs = {n: v for n, v in inputs.items() if n not in first}
    shapes = {n: dynamic.get(n) or None for n in inputs}
    return args, kwargs, shapes


def diagnose(
    error: Exception, model: nn.Module, call: Any, path: Path, shown: str, spec: Spec
) -> GenieError:
    """What stands behind an exception of torch.export, by its kind, then by running eagerly."""
    place = user_place(error.__traceback__, path, shown) or Place(file=shown)
    text = str(error)
    kind = type(error).__name__
    if kind in ("GuardOnDataDependentSymNode", "PendingUnbackedSymbolNotFound") or (
        kind in ("UserError", "Unsupported", "RuntimeError", "TorchRuntimeError")
        and ("data-dependent" in text or "data dependent" in text)
    ):
        return GenieError(
            "GEN0220",
            "the forward decides by the value of a tensor",
            place,
            _first_line(text),
            "choose with torch.where(condition, a, b) instead of if; "
            "for sizes, use a fixed size and a mask",
        )
    dims = [name for name in spec.dims if f"{name} " in text or f"({name})" in text]
    if kind in ("ConstraintViolationError", "UserError") and (
        "Constraints violated" in text or "specialized" in text or "constant" in text
    ):
        named = ", ".join(dims) or ", ".join(spec.dims)
        return GenieError(
            "GEN0221",
            f"the model does not work for every size of {named}",
            Place(file=shown),
            _reason(text),
            "narrow the range in the spec's dims, or write the fixed size into the input's shape",
        )
    eager = _eager_failure(model, call)
    if eager is not None:
        return user_error(eager, path, shown, "the forward raised")
    return GenieError(
        "GEN0222",
        "torch.export cannot capture the forward",
        place,
        f"{kind}: {_first_line(text)}",
        "write the line named above with tensor operators; "
        "docs/troubleshooting.md lists the usual cases",
    )


def _eager_failure(model: nn.Module, call: Any) -> Exception | None:
    args, kwargs = call
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        return error
    return None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:300]


def _reason(text: str) -> str:
    for line in text.splitlines():
        stripped = line.strip(" -")
        if "dynamic" in stripped or "constant" in stripped or "specialized" in stripped:
            return stripped[:300]
    return _first_line(text)
