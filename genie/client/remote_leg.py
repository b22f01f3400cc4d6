"""A run on a daemon: where its outputs land, its stream of tokens, and its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from genie.client.channel import Stream
from genie.client.link import Handle, LegEnd, RunSpec, Step
from genie_runtime.plans import concrete
from genie_schemas import messages as m
from genie_schemas.errors import GenieError, InternalError
from genie_schemas.types import TensorType
from genie_transport import DMAHandle, TransferError, TransferFuture, TransferManager

if TYPE_CHECKING:
    from genie.client.remote import RemoteLink

__all__ = ["Landing", "RemoteLeg"]

WAIT_MS = 1000


class Landing:
    """Buffers of the client's that a daemon sends outputs to."""

    def __init__(self, data: TransferManager) -> None:
        self._data = data
        self._buffers: dict[str, tuple[str, bytearray]] = {}
        self._waiting: dict[str, tuple[DMAHandle, TransferFuture]] = {}

    def add(self, value: str, type_text: str, nbytes: int) -> None:
        """Make a buffer for an output."""
        buffer = bytearray(nbytes)
        self._buffers[value] = (type_text, buffer)
        if nbytes:
            handle = self._data.register(buffer)
            self._waiting[value] = (handle, self._data.arrival(handle))

    def handles(self) -> dict[str, Handle]:
        """Where the daemon sends what has bytes."""
        return {value: handle.to_json() for value, (handle, _) in self._waiting.items()}

    def finish(self, timeout: float) -> dict[str, tuple[str, memoryview]]:
        """The outputs; the daemon has said that all were sent and verified."""
        end = time.monotonic() + timeout
        for value, (_, arrival) in self._waiting.items():
            try:
                arrival.result(max(end - time.monotonic(), 0.001))
            except (TransferError, TimeoutError) as error:
                raise GenieError(
                    "GEN0418", f"the output {value!r} did not arrive", cause=str(error)
                ) from None
        return {value: (text, memoryview(b)) for value, (text, b) in self._buffers.items()}

    def withdraw(self) -> None:
        """Take the handles back."""
        for handle, _ in self._waiting.values():
            if self._data.failure is None:
                self._data.deregister(handle)
        self._waiting.clear()


class RemoteLeg:
    """A run prepared on a daemon."""

    def __init__(self, link: RemoteLink, spec: RunSpec, prepared: m.PrepareReply) -> None:
        if prepared.run is None:
            raise InternalError("the run was not prepared")
        self._link = link
        self._channel = link.channel
        self._data = link.data
        self._session = link.session
        self._spec = spec
        self._run: str = prepared.run
        self._inputs = prepared.inputs
        self.incoming: Mapping[str, Handle] = prepared.incoming
        self._landing = Landing(self._data)
        self._sources: list[DMAHandle] = []
        self._posts: list[TransferFuture] = []
        self._ended = False
        self._stream: Stream | None = None
        self._values: Mapping[str, tuple[str, memoryview]] = {}

    def start(self, outgoing: Mapping[str, Handle]) -> None:
        """Let it go, and send the inputs."""
        for value, kind in self._outputs().items():
            dims = self._spec.inputs.dims
            if value not in self._spec.keep:
                self._landing.add(value, concrete(kind, dims), kind.nbytes(dims))
        request = m.StartRequest(
            session=self._session,
            run=self._run,
            outgoing=dict(outgoing),
            outputs=self._landing.handles(),
        )
        self._channel.call("Start", request, m.Empty)
        for name, handle in self._inputs.items():
            source = self._data.register(self._spec.inputs.data(name))
            self._sources.append(source)
            target = _handle(handle)
            self._posts.append(self._data.post(source, target, wait=10.0))

    def _outputs(self) -> dict[str, TensorType]:
        """Value → type of what this daemon's devices return."""
        bound = self._link.bindings(self._spec.plan.digest)
        shares = self._spec.plan.installed.shares
        return {
            value: kind
            for device in bound
            for value, kind in shares[self._spec.entrypoint, device].outputs.items()
        }

    def wait(self, timeout: float) -> LegEnd | None:
        """Its end, or None."""
        request = m.WaitRequest(
            session=self._session,
            run=self._run,
            timeout_ms=min(WAIT_MS, max(1, int(timeout * 1000))),
        )
        found = self._channel.call("Wait", request, m.WaitReply, WAIT_MS / 1000 + 10.0)
        if found.state == "running":
            return None
        self._ended = True
        if found.state == "failed":
            return LegEnd(found.report, m.decode_errors(found.errors), found.retryable)
        self._values = self._landing.finish(5.0)
        return LegEnd(found.report, None)

    def outputs(self) -> Mapping[str, tuple[str, memoryview]]:
        """What it returned."""
        return self._values

    def tokens(self, after: int, rows: int) -> Iterator[tuple[int, list[Step]]]:
        """A loop's tokens as they come."""
        request = m.TokensRequest(session=self._session, run=self._run, after=after)
        with self._channel.stream("Tokens", request) as stream:
            self._stream = stream
            for data in stream:
                if data[:1] != m.FRAME:
                    m.decode_reply(m.Empty, data)  # raises what the daemon says
                    raise GenieError("GEN0509", "a message of the stream holds no tokens")
                yield m.decode_tokens(data, rows)

    def release(self) -> None:
        """Give it up, whatever its state."""
        if self._stream is not None:
            self._stream.close()
        if not self._ended:
            request = m.RunRequestId(session=self._session, run=self._run)
            with contextlib.suppress(GenieError):  # one that cannot be asked lets go by its lease
                self._channel.call("Release", request, m.Empty, 5.0)
        self._landing.withdraw()
        for source in self._sources:
            if self._data.failure is None:
                self._data.deregister(source)
        self._sources.clear()


def _handle(data: Handle) -> DMAHandle:
    try:
        return DMAHandle.from_json(data)
    except TransferError as error:
        raise error.to_genie_error() from None
