"""Which module an operator belongs to: module boundaries, noted as the program crosses them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.hooks import RemovableHandle

__all__ = ["Modules"]


class Modules:
    """Numbers for dotted module paths; 0 is what no module's forward does."""

    def __init__(self, say: Callable[[int], None]) -> None:
        """`say` tells the recorder the module of what follows."""
        self._say = say
        self._names = [""]
        self._numbers = {"": 0}
        self._stack: list[int] = []
        self._trees: weakref.WeakKeyDictionary[torch.nn.Module, dict[int, int]] = (
            weakref.WeakKeyDictionary()
        )
        self._tree: dict[int, int] = {}
        self._hooks: list[RemovableHandle] = []

    def __call__(self, number: int) -> str:
        """The path of a module."""
        return self._names[number]

    def install(self) -> None:
        """Begin to note boundaries."""
        self._hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]

    @contextmanager
    def away(self) -> Iterator[None]:
        """Note no boundaries meanwhile: what they cost is measured so."""
        for hook in self._hooks:
            hook.remove()
        try:
            yield
        finally:
            self.install()

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        # What is traced runs nothing here, and torch.cond refuses branches that change a list.
        if torch.compiler.is_compiling():
            return
        if not self._stack:
            found = self._trees.get(module)
            if found is None:
                found = self._trees[module] = {
                    id(child): self._number(path) for path, child in module.named_modules()
                }
            self._tree = found
        number = self._tree.get(id(module), self._stack[-1] if self._stack else 0)
        self._stack.append(number)
        self._say(number)

    def _leave(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if self._stack:
            self._stack.pop()
        self._say(self._stack[-1] if self._stack else 0)

    def _number(self, path: str) -> int:
        number = self._numbers.get(path)
        if number is None:
            number = self._numbers[path] = len(self._names)
            self._names.append(path)
        return number
