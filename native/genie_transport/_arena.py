"""Arena: memory that a peer on the same machine may read in place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from genie_schemas.closing import Closing
from genie_transport._errors import setup_error
from genie_transport._wires import core

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Arena"]


class Arena(Closing):
    """Shared memory of this process: a sealed memfd, in 2 MiB pages where the machine has them.

    Fill it through `view`, `array` or `torch.from_dlpack(arena)`, none of which copies, and
    register parts of it like any buffer. After `TransferManager.share(arena)` the shm path reads
    transfers from it in place: one copy instead of two. Only this process can ever write it; a peer
    that it is shared with can read all of it, so give each session an arena of its own.

    The memory is freed by `close`, or when the last array, registration or connection that uses it
    is gone, whichever is later.
    """

    def __init__(self, nbytes: int, *, huge: bool = True) -> None:
        """Make and prefault `nbytes` (rounded up to pages), all zero; `huge` asks for 2 MiB pages.

        Raises GenieError: GEN0609 when the native part is not built, GEN0671 when the machine does
        not have that much memory.
        """
        module, why = core()
        if module is None:
            raise setup_error("GEN0609", "the native transports are not built", cause=why)
        if nbytes <= 0:
            raise setup_error("GEN0671", f"an arena of {nbytes} bytes cannot be made")
        try:
            self._core: Any = module.Arena(nbytes, huge)
        except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
            cause = str(error).splitlines()[0]
            text = f"an arena of {nbytes} bytes cannot be made"
            raise setup_error("GEN0671", text, cause=cause) from None
        self.nbytes = nbytes
        self.huge = bool(self._core.huge)

    @property
    def view(self) -> memoryview:
        """Its bytes, writable. Raises GenieError GEN0672 once it is closed."""
        view: memoryview = self._native().view
        return view[: self.nbytes]

    def array(self, dtype: Any, shape: tuple[int, ...], offset: int = 0) -> np.ndarray[Any, Any]:
        """A NumPy array on `shape` elements of `dtype` at byte `offset`, zero at first.

        Raises GenieError GEN0672 once it is closed, ValueError when it leaves the arena.
        """
        import numpy as np

        view, kind = self.view, np.dtype(dtype)
        end = offset + kind.itemsize * math.prod(shape)
        if min((offset, *shape)) < 0 or end > self.nbytes:
            raise ValueError(f"bytes {offset} to {end} leave the arena's {self.nbytes}")
        return np.ndarray(shape, kind, view, offset)

    # DLPack: torch.from_dlpack(arena) is a tensor of all its bytes.

    def __dlpack__(self, **options: Any) -> object:
        return self.array("u1", (self.nbytes,)).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the host

    def _native(self) -> Any:
        if self._core is None:
            raise setup_error("GEN0672", "the arena is closed")
        return self._core

    def close(self) -> None:
        """Give the memory back, unless something still uses it; then that gives it back."""
        self._core = None
