"""The trace: what the program asked for since the last run, in the order in which it did.

It is replayed literally, in-place operators and views included, so that aliasing on the device is
what it is on a CPU. Values are numbered from 0 in each trace; a tensor that was there before enters
as a leaf. The words of a trace, together, are the identity of its graph.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from genie.lazy._python import tensor as lazy
from genie.lazy._python.entry import ARGUMENT, FRESH, LIST, TENSOR, UNDEFINED, VIEW, Entry
from genie.lazy._python.tensor import LOCK, Layout, Store, is_lazy, layout_of, store_of
from genie.lazy._trace import FETCH, HOST, KEEP, LEAF, MODULE

__all__ = ["Taken", "Trace"]

_SETTLED = threading.Condition(LOCK)
"""A run has ended."""

_NOTHING = 0xFFFFFFFF
"""The value of an argument that is no tensor."""

Internal = Callable[[str, list[Any], int, Layout], Entry]
"""The entry of a call that the recorder makes itself: operator, arguments, how many of them are
tensors, and the layout that it gives."""


class Taken:
    """What a run needs: the words, handles in the order of LEAF, host tensors in that of HOST."""

    def __init__(
        self,
        words: bytes,
        leaves: list[int],
        hosts: list[Tensor],
        stores: list[Store],
        ops: int,
    ) -> None:
        self.words = words
        self.leaves = leaves
        self.hosts = hosts
        self.ops = ops
        self._stores = stores

    @property
    def kept(self) -> int:
        """How many tensors stay on the device."""
        return len(self._stores)

    def settle(self, handles: Sequence[int]) -> None:
        """The run has ended: what it kept has these handles, or, when there are none, is lost."""
        with LOCK:
            for place, store in enumerate(self._stores):
                before, store.handle = store.handle, handles[place] if handles else 0
                store.host = None
                store.away = False
                store.lost = not handles
                if before:
                    lazy.dropped.append(before)
                if store.gone and store.handle:
                    lazy.dropped.append(store.handle)
                    store.handle = 0
            _SETTLED.notify_all()


class Trace:
    """The one trace of a process. Callers hold LOCK."""

    def __init__(self, internal: Internal) -> None:
        self._internal = internal
        self._numbers: dict[Layout, int] = {}
        self._layouts: list[Layout] = []
        self.epoch = 1
        self.words: list[int] = []
        self.leaves: list[int] = []
        self.hosts: list[Tensor] = []
        self.stores: dict[Store, None] = {}
        """Written in this trace: their content is needed after it."""
        self.values = 0
        self.ops = 0
        self.module = 0
        """The module of what is recorded next."""
        self._said = 0

    def layout(self, number: int) -> Layout:
        """A layout by its number in the words."""
        return self._layouts[number]

    def number(self, layout: Layout) -> int:
        """The number of a layout."""
        found = self._numbers.get(layout)
        if found is None:
            found = self._numbers[layout] = len(self._layouts)
            self._layouts.append(layout)
        return found

    def list_store(self, store: Store) -> None:
        """The present content of a store will be needed after this trace."""
        store.written = True
        self.stores[store] = None

    def nbytes(self) -> int:
        """Bytes that the trace takes, its numbers included."""
        held = (self.words, self.leaves, self.hosts, self.stores)
        small = sys.getsizeof(1 << 20)
        return sum(map(sys.getsizeof, held)) + small * (len(self.words) + len(self.leaves))

    # -- values -------------------------------------------------------------------------------

    def value_of(self, tensor: Tensor | None) -> int:
        """The value that stands for a tensor. Raises RuntimeError (GEN0260) where it is lost."""
        if tensor is None:
            return _NOTHING
        layout = layout_of(tensor)
        if not is_lazy(tensor):
            # A number in a tensor of the host's: it travels with the run.
            self.words += (HOST, self.number(layout))
            self.hosts.append(tensor.clone())
            return self._next()
        store = store_of(tensor)
        base = self._base_of(store)
        value = store.windows.get(layout)
        if value is None:
            value = store.windows[layout] = self._window(store, base, layout)
        return value

    def _next(self) -> int:
        self.values += 1
        return self.values - 1

    def _base_of(self, store: Store) -> int:
        """The value that is the whole of a store."""
        if store.epoch == self.epoch:
            return store.value
        if store.lost:
            raise RuntimeError(
                "GEN0260: this tensor was to be computed by a run that failed; the run's error "
                "said why. Compute it again from tensors that are still there."
            )
        base = store.base
        if store.handle:
            self.words += (LEAF, self.number(base))
            self.leaves.append(store.handle)
            value = self._next()
        elif store.host is not None:
            self.words += (HOST, self.number(base))
            self.hosts.append(store.host)
            value = self._next()
            self.list_store(store)
        else:
            call = [list(base.sizes), list(base.strides), base.dtype, None, None, None]
            value = self._call("aten.empty_strided.default", call, (), base)
            self.list_store(store)
        self._hold(store, value)
        return value

    def rebase(self, store: Store, base: Layout, source: Tensor) -> None:
        """From now on a store's bytes are those of `source`, which lie as `base` says."""
        self._wait([source])
        value = self.value_of(source)
        if store.handle:
            lazy.dropped.append(store.handle)
        store.base, store.handle, store.host = base, 0, None
        self._hold(store, value)
        self.list_store(store)

    def _hold(self, store: Store, value: int) -> None:
        store.epoch, store.value, store.windows = self.epoch, value, {store.base: value}

    def _window(self, store: Store, value: int, layout: Layout) -> int:
        now = store.base
        if now.dtype != layout.dtype:
            # As one row of elements first: `view` to another dtype needs the last stride to be 1.
            count = store.bytes // now.dtype.itemsize
            row = Layout(now.dtype, (count,), (1,))
            value = self._call("aten.as_strided.default", [None, [count], [1], 0], (value,), row)
            now = Layout(layout.dtype, (store.bytes // layout.dtype.itemsize,), (1,))
            value = self._call("aten.view.dtype", [None, layout.dtype], (value,), now)
        straight = layout._replace(conj=False, neg=False)
        if now != straight:
            call = [None, list(layout.sizes), list(layout.strides), layout.offset]
            value = self._call("aten.as_strided.default", call, (value,), straight)
            now = straight
        if layout.conj:
            now = now._replace(conj=True)
            value = self._call("aten._conj.default", [None], (value,), now)
        if layout.neg:
            now = now._replace(neg=True)
            value = self._call("aten._neg_view.default", [None], (value,), now)
        return value

    def _call(self, op: str, arguments: list[Any], inputs: tuple[int, ...], made: Layout) -> int:
        """A call that no program made: a view taken again, or an empty tensor."""
        entry = self._internal(op, arguments, len(inputs), made)
        self._say_module()
        self.words.append(entry.id)
        self.words += inputs
        self.ops += 1
        return self._next()

    def _say_module(self) -> None:
        if self.module != self._said:
            self.words += (MODULE, self.module)
            self._said = self.module

    def _wait(self, tensors: Sequence[Tensor | None]) -> None:
        """Until runs that another thread waits for have settled what these tensors are."""
        while any(t is not None and is_lazy(t) and store_of(t).away for t in tensors):
            _SETTLED.wait()

    # -- calls --------------------------------------------------------------------------------

    def record(self, entry: Entry, arguments: Sequence[Any]) -> Any:
        """Append a call; what it returns to the program."""
        flat: list[Tensor | None] = []
        for kind, given in zip(entry.kinds, arguments, strict=True):
            if kind == TENSOR:
                flat.append(given)
            elif kind == LIST:
                flat += given
        self._wait(flat)
        first = 0
        if not entry.silent:
            self._say_module()
            # Values of arguments first: taking a view again puts words of its own before this call.
            values = [self.value_of(tensor) for tensor in flat]
            self.words.append(entry.id)
            self.words += values
            self.ops += 1
            first = self.values
            self.values += len(entry.results)
            for place in entry.writes:
                written = flat[place]
                if written is not None and is_lazy(written):
                    self.list_store(store_of(written))
        for place, layout in entry.moved:
            moved = flat[place]
            if moved is not None:
                lazy.set_layout(moved, layout)
        made = [self._result(entry, place, first, flat) for place in range(len(entry.results))]
        returned: list[Any] = []
        for length in entry.lists:
            if length < 0:
                returned.append(made.pop(0))
            else:
                returned.append(made[:length])
                del made[:length]
        if len(returned) == 1:
            return returned[0]
        return tuple(returned) if returned else None

    def _result(
        self, entry: Entry, place: int, first: int, flat: list[Tensor | None]
    ) -> Tensor | None:
        result = entry.results[place]
        if result.origin == UNDEFINED:
            return None
        source = flat[result.source] if result.origin in (ARGUMENT, VIEW) else None
        if result.origin == ARGUMENT:
            return source
        if source is not None:
            made = lazy.make_view(source, result.layout)
            if not entry.silent:
                store_of(source).windows[result.layout] = first + place
            return made
        assert result.origin == FRESH  # noqa: S101 - a view has a source
        made = lazy.make_tensor(result.layout)
        store = store_of(made)
        self._hold(store, first + place)
        self.list_store(store)
        return made

    # -- its end ------------------------------------------------------------------------------

    def peek(self, fetch: Sequence[Tensor]) -> Taken:
        """The words so far with `fetch` at their end, and what they need; the trace goes on."""
        last: list[int] = []
        for tensor in fetch:
            last += (FETCH, self.value_of(tensor), self.number(layout_of(tensor)))
        words = array("I", [*self.words, *last]).tobytes()
        return Taken(words, list(self.leaves), list(self.hosts), [], self.ops)

    def take(self, fetch: Sequence[Tensor]) -> Taken:
        """End the trace: what a storage still needs is kept, `fetch` comes back to the client."""
        last: list[int] = []
        for tensor in fetch:
            last += (FETCH, self.value_of(tensor), self.number(layout_of(tensor)))
        stores = [store for store in self.stores if not store.gone]
        for store in stores:
            self.words += (KEEP, self._base_of(store), self.number(store.base))
            store.away = True
        words = array("I", [*self.words, *last]).tobytes()
        taken = Taken(words, self.leaves, self.hosts, stores, self.ops)
        self.words, self.leaves, self.hosts, self.stores = [], [], [], {}
        self.values = self.ops = self._said = 0
        self.epoch += 1
        return taken
