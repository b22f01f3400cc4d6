"""State that a forward keeps in plain attributes: `self.cache = torch.cat([self.cache, x])`.

torch.export takes the value that the attribute had before as a constant, puts it back afterwards
and says so in a warning. Where a second call gives another result, a plan would compute every run
with the first value: refused. An attribute that is only written, such as the last attention map,
made once, such as a table of cosines, or moved (`self.mask = self.mask.to(x.device)`) changes
nothing of the results.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from genie.capture.inputs import graph_inputs
from genie_schemas.errors import GenieError, Place
from genie_schemas.errors.user_code import is_users, line_place

__all__ = ["check_assigned"]

_Call = tuple[tuple[Any, ...], dict[str, Any]]

_WARNING = re.compile(r"The tensor attributes? (.+) (?:was|were) assigned during export", re.DOTALL)
_PATH = re.compile(r"self(?:\.\w+|\[[^\]]*\])+")
_STEP = re.compile(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]")


def check_assigned(
    program: ExportedProgram,
    model: nn.Module,
    caught: Iterable[warnings.WarningMessage],
    call: _Call,
    place: tuple[Path, str],
) -> None:
    """GEN0224 when forward assigns to an attribute and computes with what it held before.

    `caught` are the warnings of the export, `call` the example inputs, `place` the model file with
    the name that it is shown under.
    """
    texts = (_WARNING.search(str(warning.message)) for warning in caught)
    paths = [path for found in texts if found for path in _PATH.findall(found[1])]
    if not paths:
        return
    read = _constants_in_use(program)
    held = [p for p in paths if _storage(_resolve(model, p)) in read]
    differs = _differs_when_repeated(model, call)
    if differs or (differs is None and held):
        path = (held or paths)[0]
        raise GenieError(
            "GEN0224",
            f"the forward computes with {path} and assigns to it",
            _assignment(model, path, call, *place) or Place(file=place[1]),
            "it is no buffer of the model, so that every run would start from the first value",
            "make it a buffer with register_buffer: its new value is an output of the plan then",
        )


def _differs_when_repeated(model: nn.Module, call: _Call) -> bool | None:
    """Whether a second call gives another result; None when it cannot be called with examples.

    Parameters and buffers are put back before it, and both calls draw the same random numbers.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {name: tensor.detach().clone() for name, tensor in own.items()}
    attributes = {module: _copied(vars(module)) for module in model.modules()}
    results: list[list[Any]] = []
    try:
        for _ in range(2):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                given = pytree.tree_map_only(torch.Tensor, torch.clone, call)
                found = pytree.tree_leaves(model(*given[0], **given[1]))
                results.append([t.clone() if isinstance(t, torch.Tensor) else t for t in found])
                for name, tensor in own.items():
                    tensor.copy_(before[name])
    except Exception:
        return None
    finally:
        for module, kept in attributes.items():
            vars(module).clear()
            vars(module).update(kept)
    return not all(map(_same, *results)) or len(results[0]) != len(results[1])


def _copied(value: Any) -> Any:
    """Containers of containers, anew; what lies in them stays."""
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if type(value) is list else value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.allclose(one, other, 0, 0, equal_nan=True)
    return type(one) is type(other)


def _storage(value: Any) -> int | None:
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _constants_in_use(program: ExportedProgram) -> set[int]:
    """The storages of the lifted constants that a call reads."""
    used = {n.name for n in graph_inputs(program.graph) if n.users}
    found = set()
    for item in program.graph_signature.input_specs:
        if item.kind == InputKind.CONSTANT_TENSOR and item.arg.name in used:
            tensor = program.constants[str(item.target)]
            found.add(tensor.untyped_storage()._cdata)
    return found


def _resolve(model: nn.Module, path: str) -> Any:
    """The value of "self.cache['k'][0]"; None where there is none any more."""
    found: Any = model
    try:
        for name, key, index in _STEP.findall(path):
            found = getattr(found, name) if name else found[key if not index else int(index)]
    except (AttributeError, KeyError, IndexError, TypeError):
        return None
    return found


def _assignment(model: nn.Module, path: str, call: _Call, file: Path, shown: str) -> Place | None:
    """The user's line that assigns, found by running the forward once more."""
    last = _STEP.findall(path)[-1][0]
    with _watched(last, file) as lines:
        try:
            with torch.no_grad():
                model(*call[0], **call[1])
        except Exception:
            return None  # without example values it need not run: the error is told without a line
    return line_place(*lines[-1], file, shown) if lines else None


@contextmanager
def _watched(name: str, file: Path) -> Iterator[list[tuple[str, int]]]:
    """Note the user's lines that set an attribute of this name."""
    lines: list[tuple[str, int]] = []
    before = nn.Module.__setattr__

    def note(self: nn.Module, attribute: str, value: Any) -> None:
        frame = sys._getframe(1)
        if attribute == name and is_users(frame.f_code.co_filename, file):
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        before(self, attribute, value)

    nn.Module.__setattr__ = note  # type: ignore[assignment, method-assign]
    try:
        yield lines
    finally:
        nn.Module.__setattr__ = before  # type: ignore[method-assign]
