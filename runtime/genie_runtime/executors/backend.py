"""Where an executor's tensors live: host memory, or a CUDA device.

A backend moves bytes between shared memory and tensors and calls bound programs. Everything else
(steps, values, accounting) is the same on both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Protocol

import torch

from genie_runtime.executors.bounce import Bounce
from genie_runtime.executors.bound import Bound
from genie_runtime.executors.graphs import Graphs
from genie_runtime.executors.runs import Stop
from genie_runtime.ports import DeviceSpec
from genie_schemas.errors import GenieError

__all__ = ["Backend", "is_fatal", "is_out_of_memory", "make_backend"]

_BOUNCE_FROM = 1 << 20
"""Bytes from which pinned buffers pay: below, the driver copies through one of its own at once."""


class Backend(Protocol):
    """What a device's memory and calls need. `host` tensors view shared memory."""

    device: torch.device
    records: bool
    """Whether `call` caches anything that holds the tensors it was given."""

    def name(self) -> str:
        """The device's name, for people."""
        ...

    def memory_bytes(self) -> int:
        """What the device has in all."""
        ...

    def run_context(self) -> contextlib.AbstractContextManager[None]:
        """Entered by the thread of a run around all it does."""
        ...

    def read(self, host: torch.Tensor) -> torch.Tensor:
        """The value that lies in `host`: a view of it, or a copy on the device."""
        ...

    def read_constant(self, host: torch.Tensor) -> torch.Tensor:
        """The same for a constant: done once, may be larger."""
        ...

    def write(self, value: torch.Tensor, host: torch.Tensor) -> None:
        """Copy a value into shared memory; done when this returns."""
        ...

    def call(
        self,
        key: Hashable,
        bound: Bound,
        reads: Sequence[torch.Tensor],
        fixed: Sequence[bool],
        stop: Stop,
    ) -> list[torch.Tensor]:
        """Run a program. `key` is the same for calls whose `fixed` reads are the same tensors."""
        ...

    def forget(self, plan: str) -> None:
        """Drop what was cached under keys that start with this plan."""
        ...

    def forget_state(self, uids: Collection[int]) -> None:
        """Drop what was cached under keys that end with one of these, and so with the state."""
        ...

    def recover(self) -> None:
        """After running out of memory: give back what is cached but unused."""
        ...


class _CpuBackend:
    """Host memory: values in shared memory are used where they lie."""

    records = False

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def name(self) -> str:
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"

    def memory_bytes(self) -> int:
        import psutil

        return int(psutil.virtual_memory().total)

    def run_context(self) -> contextlib.AbstractContextManager[None]:
        return torch.inference_mode()

    def read(self, host: torch.Tensor) -> torch.Tensor:
        return host

    read_constant = read

    def write(self, value: torch.Tensor, host: torch.Tensor) -> None:
        host.copy_(value)

    def call(
        self,
        key: Hashable,
        bound: Bound,
        reads: Sequence[torch.Tensor],
        fixed: Sequence[bool],
        stop: Stop,
    ) -> list[torch.Tensor]:
        return bound.run(reads, stop)

    def forget(self, plan: str) -> None:
        pass

    def forget_state(self, uids: Collection[int]) -> None:
        pass

    def recover(self) -> None:
        pass


class _CudaBackend:
    """A CUDA device: one stream, values copied in and out, programs replayed as CUDA graphs."""

    records = True

    def __init__(self, index: int, memory_bytes: int) -> None:
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise GenieError(
                "GEN0468",
                f"torch finds no CUDA device {index}",
                cause=f"torch {torch.__version__}, CUDA "
                f"{torch.version.cuda or 'not built in'}, {torch.cuda.device_count()} devices",
                remedy="run `genie doctor`; install a driver and a torch built for CUDA",
            )
        self.device = torch.device("cuda", index)
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_bytes / total), self.device)
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._graphs = Graphs(self._stream)
        self._bounce = Bounce(self.device)

    def name(self) -> str:
        return torch.cuda.get_device_name(self.device)

    def memory_bytes(self) -> int:
        return int(torch.cuda.get_device_properties(self.device).total_memory)

    @contextlib.contextmanager
    def run_context(self) -> Iterator[None]:
        with (
            torch.inference_mode(),
            torch.cuda.device(self.device),
            torch.cuda.stream(self._stream),
        ):
            yield

    def read(self, host: torch.Tensor) -> torch.Tensor:
        value = torch.empty_strided(
            host.size(), host.stride(), dtype=host.dtype, device=self.device
        )
        if host.nbytes < _BOUNCE_FROM:
            value.copy_(host)
        else:
            self._bounce.to_device(_bytes_of(host), _bytes_of(value))
        return value

    def read_constant(self, host: torch.Tensor) -> torch.Tensor:
        with self.run_context():
            value = self.read(host)
            self._stream.synchronize()
        return value

    def write(self, value: torch.Tensor, host: torch.Tensor) -> None:
        if host.nbytes < _BOUNCE_FROM or value.stride() != host.stride():
            host.copy_(value)
            self._stream.synchronize()
        else:
            self._bounce.to_host(_bytes_of(value), _bytes_of(host))

    def call(
        self,
        key: Hashable,
        bound: Bound,
        reads: Sequence[torch.Tensor],
        fixed: Sequence[bool],
        stop: Stop,
    ) -> list[torch.Tensor]:
        return self._graphs.call(key, bound, reads, fixed, stop)

    def forget(self, plan: str) -> None:
        self._graphs.forget(lambda key: key[0] == plan)

    def forget_state(self, uids: Collection[int]) -> None:
        self._graphs.forget(lambda key: key[-1] in uids)

    def recover(self) -> None:
        self._graphs.clear()
        torch.cuda.empty_cache()


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """All bytes of a dense tensor, in the order in which they lie."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def make_backend(spec: DeviceSpec) -> Backend:
    """The backend of a device. Raises GenieError GEN0468 when this machine lacks the device."""
    if spec.kind == "cuda":
        return _CudaBackend(spec.index, spec.memory_bytes)
    return _CpuBackend()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a kernel failed for want of memory. The CPU's allocator has no type of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_fatal(error: BaseException) -> bool:
    """Whether it says that the device is lost, as after a failed assertion in a CUDA kernel."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.AcceleratorError):
            return not is_out_of_memory(cause)
        cause = cause.__cause__
    return False
