"""Which module an operator belongs to: module boundaries, noted as the program crosses them.

`nn.Module.__call__` itself is wrapped. Torch's own global hooks would do, but with any of them set,
every call of every module takes a longer way through torch, which alone costs as much as one per
cent of a small model's run; `genie bench capture` measures what the wrapper costs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling

__all__ = ["Modules"]


class Modules:
    """Numbers for dotted module paths; 0 is what no module's forward does."""

    def __init__(self, say: Callable[[int], None]) -> None:
        """`say` tells the recorder the module of what follows."""
        self._say = say
        self._names = [""]
        self._numbers = {"": 0}
        self._trees: weakref.WeakKeyDictionary[nn.Module, dict[int, int]] = (
            weakref.WeakKeyDictionary()
        )
        self._wrapped: Callable[..., Any] | None = None
        self._known: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.calls = 0
        """Calls of whole models: by what no module called, and what has parameters."""

    def __call__(self, number: int) -> str:
        """The path of a module."""
        return self._names[number]

    def install(self) -> None:
        """Begin to note boundaries."""
        call = self._wrapped = nn.Module.__call__
        say, numbers_of = self._say, self._numbers_of
        stack: list[int] = []
        tree: dict[int, int] = {}

        @wraps(call)
        def noting(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            nonlocal tree
            # What is traced runs nothing here, and torch.cond refuses branches that change a list.
            if is_compiling():
                return call(module, *args, **kwargs)
            if stack:
                number = tree.get(id(module), stack[-1])
            else:
                if next(module.parameters(), None) is not None:
                    self.calls += 1
                tree = numbers_of(module)
                number = tree[id(module)]
            stack.append(number)
            say(number)
            try:
                return call(module, *args, **kwargs)
            finally:
                stack.pop()
                say(stack[-1] if stack else 0)

        nn.Module.__call__ = noting  # type: ignore[method-assign]

    def know(self, root: nn.Module) -> None:
        """Count a module's tensors among those of `tensors`, whether it is called or not."""
        self._known.add(root)

    def tensors(self) -> Iterator[tuple[Tensor, str]]:
        """Parameters, then buffers, of the modules that were called or moved and still exist.

        Each with "parameter" or "buffer", as a graph's constants are.
        """
        roots = list(self._known)
        for root in roots:
            yield from ((tensor, "parameter") for tensor in root.parameters())
        for root in roots:
            yield from ((tensor, "buffer") for tensor in root.buffers())

    @contextmanager
    def away(self) -> Iterator[None]:
        """Note no boundaries meanwhile: what they cost is measured so."""
        if self._wrapped is not None:
            nn.Module.__call__ = self._wrapped  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.install()

    def _numbers_of(self, root: nn.Module) -> dict[int, int]:
        """The numbers of a module that nothing called, and of all within it, by `id`."""
        found = self._trees.get(root)
        if found is None:
            self._known.add(root)
            found = self._trees[root] = {
                id(child): self._number(path) for path, child in root.named_modules()
            }
        return found

    def _number(self, path: str) -> int:
        number = self._numbers.get(path)
        if number is None:
            number = self._numbers[path] = len(self._names)
            self._names.append(path)
        return number
