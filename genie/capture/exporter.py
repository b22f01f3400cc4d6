"""`torch.export` of the user's module under the spec's inputs, with its failures told apart."""

from __future__ import annotations

import difflib
import inspect
import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, _trace

from genie.capture.assigned import check_assigned
from genie.capture.equivalents import Equivalents
from genie.capture.failures import diagnose
from genie_schemas.errors import GenieError, GenieErrors, Place
from genie_schemas.spec import Input, Spec


def example_inputs(spec: Spec, empty: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """Input name → a deterministic example at the dimensions' example sizes.

    Those in `empty` are zeros, of which a system keeps no page until somebody writes to it: a
    cache may be larger than memory.

    Floats run through [-1, 1), integers through [low, high) of the spec; never random, so that a
    capture does not depend on a generator's state.
    """
    return {n: _example(item, spec, n in empty) for n, item in spec.inputs.items()}


def _example(item: Input, spec: Spec, empty: bool) -> torch.Tensor:
    shape = [spec.dims[s].example if isinstance(s, str) else s for s in item.shape]
    dtype = getattr(torch, item.dtype)
    if empty:
        return torch.zeros(shape, dtype=dtype)
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


def forward_place(model: nn.Module, shown: str) -> Place:
    """Where the model's forward is defined; `shown` is the model file's name."""
    code = getattr(type(model).forward, "__code__", None)
    if code is None:
        return Place(file=shown)
    name = Path(code.co_filename).name
    return Place(shown if name == Path(shown).name else name, code.co_firstlineno)


def check_parameters(model: nn.Module, spec: Spec, shown: str) -> None:
    """Compare the spec's inputs with forward's parameters; GEN0206 for every difference."""
    parameters = inspect.signature(model.forward).parameters
    place = forward_place(model, shown)
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


def export(
    model: nn.Module, spec: Spec, path: Path, shown: str, empty: Collection[str] = ()
) -> ExportedProgram:
    """Export the forward to training IR with the spec's dynamic dimensions.

    The inputs in `empty` are traced with zeros, all others with examples.
    Inference only: gradients are off, which also keeps `torch.no_grad()` regions in line.
    Raises GenieError GEN0202, GEN0206, GEN0220, GEN0221, GEN0222, GEN0224, GEN0226.
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
    args, kwargs, shapes = _call(model, spec, dynamic, empty)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught, _without_torchs_log():
        warnings.simplefilter("always")
        try:
            with _explicit(model, spec), Equivalents():
                program = torch.export.export(
                    model, args, kwargs, dynamic_shapes=shapes, strict=False
                )
        except BaseException as error:
            raise diagnose(error, model, (args, kwargs), path, shown, spec) from error
    check_assigned(program, model, caught, (args, kwargs), (path, shown))
    return program


def _call(
    model: nn.Module, spec: Spec, dynamic: dict[str, dict[int, Any]], empty: Collection[str]
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional-only parameters by position, the others by name."""
    inputs = example_inputs(spec, empty)
    first = positional_only(model, spec)
    args = tuple(inputs[n] for n in first)
    kwargs = {n: v for n, v in inputs.items() if n not in first}
    shapes = {n: dynamic.get(n) or None for n in inputs}
    return args, kwargs, shapes


@contextmanager
def _without_torchs_log() -> Iterator[None]:
    """Keep torch from logging a failure, and from printing the graph so far: we tell it once."""
    before = {logger: logger.level for logger in map(logging.getLogger, _LOGGERS)}
    for logger in before:
        logger.setLevel(logging.CRITICAL + 1)
    # It prints with the built-in: a name of the module's own stands in front of that.
    _trace.print = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del _trace.print  # type: ignore[attr-defined]
        for logger, level in before.items():
            logger.setLevel(level)


_LOGGERS = (
    "torch._subclasses.fake_tensor",
    "torch.export._trace",
    "torch.fx.experimental.symbolic_shapes",
)


@contextmanager
def _explicit(model: nn.Module, spec: Spec) -> Iterator[None]:
    """Give inputs that forward collects in **kwargs parameters of their own.

    torch.export makes no dimension of a collected tensor dynamic.
    """
    forward = model.forward
    parameters = inspect.signature(forward).parameters
    collected = [n for n in spec.inputs if n not in parameters]
    if not collected:
        yield
        return

    def explicit(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    kept = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    added = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in collected]
    explicit.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    own = vars(model).get("forward")
    model.forward = explicit
    try:
        yield
    finally:
        del model.forward
        if own is not None:
            model.forward = own


def positional_only(model: nn.Module, spec: Spec) -> list[str]:
    """The spec's inputs that forward takes by position alone, in forward's order."""
    parameters = inspect.signature(model.forward).parameters
    return [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY and n in spec.inputs]
