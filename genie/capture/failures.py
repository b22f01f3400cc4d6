"""What stands behind a failure of torch.export: told apart, located, with the usual remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genie_schemas.errors import GenieError, Place
from genie_schemas.errors.user_code import error_text, traced_place, user_error, user_place
from genie_schemas.spec import Spec


def diagnose(
    error: BaseException, model: nn.Module, call: Any, path: Path, shown: str, spec: Spec
) -> GenieError:
    """What stands behind an exception of torch.export, by its kind, then by running eagerly."""
    place = user_place(error.__traceback__, path, shown) or Place(file=shown)
    text = error_text(error)
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
    if _CONTROL.search(text) and kind in ("UncapturedHigherOrderOpError", "TorchRuntimeError"):
        return _control_flow(text, place)
    if kind == "UncapturedHigherOrderOpError" and _IN_BRANCH.search(text):
        return _untraceable_branch(text, traced_place(text, path, shown) or place)
    if kind in ("ConstraintViolationError", "UserError") and (
        "Constraints violated" in text or "specialized" in text or "constant" in text
    ):
        return _fixed_dimension(text, shown, spec)
    eager = _eager_failure(model, call)
    if eager is not None:
        error = user_error(eager, path, shown, "the forward raised")
        error.remedy = f"call it in Python with {_inputs(call)} and mend it there first"
        return error
    shapeless = _SHAPELESS.search(text)
    if kind == "UnsupportedOperatorException" or shapeless:
        name = shapeless[1].replace("::", ".") if shapeless else _first_line(text)
        return GenieError(
            "GEN0223",
            f"the operator {name} is not supported",
            place,
            "torch cannot tell the shape of its result without running it",
            "write it with other operators on dense tensors",
        )
    remedy = "write the line named above with tensor operators; "
    if "not a known type" in text:
        remedy = "return tensors, or tuples, lists, dicts and dataclasses of them; "
    elif place.line is None:
        remedy = "write the forward with tensor operators on dense tensors; "
    return GenieError(
        "GEN0222",
        "torch.export cannot capture the forward",
        place,
        f"{kind}: {_first_line(text)}",
        remedy + "docs/troubleshooting.md lists the usual cases",
    )


def _inputs(call: Any) -> str:
    """What the forward was called with: tensors, one an input of the spec."""
    args, kwargs = call
    named = [("", t) for t in args] + [(f"{name}=", t) for name, t in kwargs.items()]
    return ", ".join(
        f"{name}{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for name, t in named
    )


_SHAPELESS = re.compile(r"no fake impl registered for <CustomOpDef\(([\w:]+)\)>")
"""What torch says of a custom operator without a shape rule."""

_CONTROL = re.compile(r"call_function (cond|while_loop|scan)|higher_order\.(cond|while_loop|scan)")


_IN_BRANCH = re.compile(
    r"Got graph break/error:\s*(.+)\s*"
    r"Higher Order Operator: (?:torch\.)?(?:ops\.higher_order\.)?(\w+)"
)


def _untraceable_branch(text: str, place: Place) -> GenieError:
    """A call inside a branch or turn that torch does not trace there; torch says which."""
    found = _IN_BRANCH.search(text)
    what, name = found.groups() if found else ("", "control flow")
    return GenieError(
        "GEN0222",
        f"torch cannot capture this call of {name}",
        place,
        f"a branch or turn holds what torch does not trace there: {what.strip()}",
        "write the branch with operators that return new tensors, or move the call out of it",
    )


def _control_flow(text: str, place: Place) -> GenieError:
    """A call of torch.cond and its like that torch does not take, in fewer words than torch's."""
    found = _CONTROL.search(text)
    name = next(filter(None, found.groups())) if found else "control flow"
    if "aliasing" in text:
        cause = "a branch or turn returns a tensor that it was given, or writes to one"
        remedy = "return a copy of it: x.clone()"
    else:
        cause = "its branches or turns do not fit: " + _first_line(text)
        remedy = "let every branch or turn return tensors of one shape and dtype"
    return GenieError("GEN0222", f"torch cannot capture this call of {name}", place, cause, remedy)


def _eager_failure(model: nn.Module, call: Any) -> BaseException | None:
    args, kwargs = call
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except BaseException as error:
        return error
    return None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:300]


def _fixed_dimension(text: str, shown: str, spec: Spec) -> GenieError:
    violated = re.search(r"Constraints violated \(([^)]*)\)", text)
    named = violated[1] if violated else ", ".join(spec.dims)
    fixed = re.search(r"marked (\w+) as dynamic but your code specialized it .*?\((\d+)\)", text)
    if fixed:
        name, size = fixed[1], fixed[2]
        cause = f"the code fixed {name} to {size}, the size that it was traced with"
        remedy = (
            f"write {size} into the shape instead of {name}; where the code works for other sizes "
            f"too, give {name} a larger example in the spec's dims, because sizes of 1 and 0 that "
            "follow from a small one are fixed"
        )
    else:
        found = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("- ")]
        cause = _in_words(found[0] if found else _first_line(text), spec)
        narrower = re.findall(r"(\w+) = Dim\('\w+', ([^)]*)\)", text)
        advice = "; ".join(
            f"{n}: {{{r.replace('=', ': ')}}}" for n, r in narrower if n in spec.dims
        )
        remedy = (
            "narrow the range in the spec's dims"
            + (f" to {advice}" if advice else "")
            + ", or write a fixed size into the input's shape"
        )
    message = f"the model does not work for every size of {named}"
    return GenieError("GEN0221", message, Place(file=shown), cause, remedy)


def _in_words(line: str, spec: Spec) -> str:
    """Torch's sentence with the spec's dimension names: L['x'].size()[0] is batch."""

    def dimension(match: re.Match[str]) -> str:
        item = spec.inputs.get(match[1])
        axis = int(match[2])
        return str(item.shape[axis]) if item and axis < len(item.shape) else match[0]

    size = r"L\['(\w+)'\]\.size\(\)\[(\d+)\]"
    return re.sub(size, dimension, re.sub(rf"(\w+) = {size}", r"\1", line))[:300]
