"""State that a forward keeps in plain attributes: `self.cache = torch.cat([self.cache, x])`.

torch.export takes the value that the attribute had before as a constant, puts it back afterwards
and says so in a warning. Where the forward reads that constant, a plan would compute every run
with the first value: refused. An attribute that is only written, such as the last attention map,
changes nothing of the results.
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
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from genie_schemas.errors import GenieError, Place
from genie_schemas.errors.user_code import is_users, line_place

__all__ = ["check_assigned"]

_WARNING = re.compile(r"The tensor attributes? (.+) (?:was|were) assigned during export", re.DOTALL)
_PATH = re.compile(r"self(?:\.\w+|\[[^\]]*\])+")
_STEP = re.compile(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]")


def check_assigned(
    program: ExportedProgram,
    model: nn.Module,
    caught: Iterable[warnings.WarningMessage],
    call: tuple[tuple[Any, ...], dict[str, Any]],
    place: tuple[Path, str],
) -> None:
    """GEN0224 when forward assigns to an attribute whose former tensor it computes with.

    `caught` are the warnings of the export, `call` the example inputs, `place` the model file with
    the name that it is shown under.
    """
    texts = (_WARNING.search(str(warning.message)) for warning in caught)
    paths = [path for found in texts if found for path in _PATH.findall(found[1])]
    if paths:
        read = _constants_in_use(program)
        for path in paths:
            before = _resolve(model, path)
            if isinstance(before, torch.Tensor) and before.untyped_storage()._cdata in read:
                raise GenieError(
                    "GEN0224",
                    f"the forward computes with {path} and assigns to it",
                    _assignment(model, path, call, *place) or Place(file=place[1]),
                    "it is no buffer of the model, so that every run would start from the first "
                    "value",
                    "make it a buffer with register_buffer: its new value is an output of the "
                    "plan then",
                )


def _constants_in_use(program: ExportedProgram) -> set[int]:
    """The storages of the lifted constants that a call reads."""
    used = {n.name for n in program.graph.nodes if n.op == "placeholder" and n.users}
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


_Call = tuple[tuple[Any, ...], dict[str, Any]]


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
