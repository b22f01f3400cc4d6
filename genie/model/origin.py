"""The user's line that gave the model a tensor or a module, found only when an error needs it.

Modules do not remember where their tensors come from. So the entry is called once more, and who
makes tensors and registers them is watched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from genie_schemas.errors import Place
from genie_schemas.errors.user_code import is_users, line_place

__all__ = ["origin"]

_Line = tuple[str, int]


def origin(entry: Callable[[], Any], name: str, path: Path, shown: str) -> Place | None:
    """The innermost line of the user's own code that gave the model its tensor or module `name`.

    `entry` makes the model anew. That is the line where a tensor was put on the meta device when
    it is there, else the one where it was registered. None when a second call tells nothing.
    """
    watch = _Watch(path)
    try:
        with _registrations(watch), watch:
            model = entry()
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        tensor = getattr(module, last)
    except Exception:
        return None  # another outcome than the first time: the error is told without its line
    line = watch.meta.get(_memory(tensor)) or watch.registered.get((id(module), last))
    return line_place(*line, path, shown) if line is not None else None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the user's lines that make tensors on the meta device."""

    def __init__(self, path: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path
        self.meta: dict[int, _Line] = {}
        self.registered: dict[tuple[int, str], _Line] = {}
        self._kept: list[Any] = []
        """What was noted, so that nothing else takes its place in memory meanwhile."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the operator, and note who made a result without values."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_meta:
            line = self.line()
            if line is not None:
                self.meta[_memory(result)] = line
                self._kept.append(result)
        return result

    def note(self, module: nn.Module, name: str, tensor: Any) -> None:
        """A tensor was registered."""
        line = self.line()
        if line is not None:
            self.registered[id(module), name] = line
            self._kept.append(module)

    def line(self) -> _Line | None:
        """The innermost line of the user's own code on the stack."""
        frame = sys._getframe(1)
        while frame is not None:
            if is_users(frame.f_code.co_filename, self.path):
                return frame.f_code.co_filename, frame.f_lineno
            if frame.f_back is None:
                break
            frame = frame.f_back
        return None


def _memory(tensor: Any) -> int:
    """The same for a tensor on the meta device and the parameter that is made of it, else 0."""
    meta = isinstance(tensor, torch.Tensor) and tensor.is_meta
    return int(tensor.untyped_storage()._cdata) if meta else 0


@contextmanager
def _registrations(watch: _Watch) -> Iterator[None]:
    handles = [
        hooks.register_module_parameter_registration_hook(watch.note),
        hooks.register_module_buffer_registration_hook(watch.note),
        hooks.register_module_module_registration_hook(watch.note),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
