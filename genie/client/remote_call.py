"""A daemon's end of a call channel: one message there, one back, in buffers that stay."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from genie.client.link import CallEnd, Handle, RunSpec
from genie_runtime.plans import call_layout, concrete
from genie_schemas import messages as m
from genie_schemas.calls import Invocation, Reply, Status
from genie_schemas.errors import GenieError
from genie_transport import DMAHandle, Priority, TransferError, TransferFuture

if TYPE_CHECKING:
    from genie.client.remote import RemoteLink

__all__ = ["RemoteCall"]

_ANY = 1 << 62
_TAIL = 5.0
"""Seconds that large outputs may come after the reply that announces them."""

_QUEUE = 10.0


class RemoteCall:
    """A call channel on one daemon. One invocation at a time: start, wait, outputs, settle."""

    def __init__(self, link: RemoteLink, spec: RunSpec, links: Mapping[str, str]) -> None:
        """Open it over the control connection. Raises what `OpenCall` does."""
        self._link = link
        self._data = link.data
        self._devices = sorted(link.bindings(spec.plan.digest))
        plan, dims = spec.plan.installed, spec.inputs.dims
        self._layout = call_layout(plan, spec.entrypoint, self._devices, dims, _ANY)
        kinds = {
            value: kind
            for device in self._devices
            for value, kind in plan.shares[spec.entrypoint, device].outputs.items()
        }
        self._types = {value: concrete(kind, dims) for value, kind in kinds.items()}
        self._sizes = {value: kind.nbytes(dims) for value, kind in kinds.items()}
        self._sequence = 0
        self._begun_ns = 0
        self._mine: list[DMAHandle] = []
        try:
            self._allocate()
        except TransferError as error:
            raise self._broken("a request", error) from None
        self._arrivals: list[TransferFuture] = []
        self._posts: list[TransferFuture] = []
        self._passing: list[DMAHandle] = []
        self._moved = [0, 0]
        try:
            opened = self._open(spec, links)
        except BaseException:
            self._withdraw()
            raise
        self._call = opened.call
        self._channel = bytes.fromhex(opened.call)
        self._target = _handle(opened.request)
        self._targets = {name: _handle(h) for name, h in opened.inputs.items()}
        self.incoming: Mapping[str, Handle] = opened.incoming
        lengths = set(self._targets) == set(self._layout.inputs_apart)
        if self._target.length != len(self._request) or not lengths:
            self.close()
            raise GenieError("GEN0432", "the daemon's call channel does not fit the plan")

    def _allocate(self) -> None:
        self._reply = memoryview(bytearray(self._layout.reply_bytes))
        self._reply_handle = self._register(self._reply)
        self._outputs = {v: memoryview(bytearray(n)) for v, n in self._apart().items()}
        self._output_handles = {v: self._register(b) for v, b in self._outputs.items()}
        self._request = memoryview(bytearray(self._layout.request_bytes))
        self._source = self._register(self._request)

    def _apart(self) -> dict[str, int]:
        return {value: self._sizes[value] for value in self._layout.outputs_apart}

    def _open(self, spec: RunSpec, links: Mapping[str, str]) -> m.OpenCallReply:
        request = m.OpenCallRequest(
            session=self._link.session,
            plan_digest=spec.plan.digest,
            entrypoint=spec.entrypoint,
            dims=dict(spec.inputs.dims),
            links=dict(links),
            reply=self._reply_handle.to_json(),
            outputs={value: h.to_json() for value, h in self._output_handles.items()},
        )
        return self._link.channel.call("OpenCall", request, m.OpenCallReply)

    def target(self, outgoing: Mapping[str, Handle]) -> None:
        """Tell the daemon where its transfers to others go; needed once, when there are any."""
        request = m.LinkCallRequest(
            session=self._link.session, call=self._call, outgoing=dict(outgoing)
        )
        self._link.channel.call("LinkCall", request, m.Empty)

    # -- an invocation ----------------------------------------------------------------------

    def start(self, spec: RunSpec, seconds: float) -> None:
        """Send a request that may take `seconds`; the inputs must not change until `settle`."""
        try:
            self._send(spec, seconds)
        except TransferError as error:
            raise self._broken("a request", error) from None

    def _send(self, spec: RunSpec, seconds: float) -> None:
        data, layout = self._data, self._layout
        self._sequence += 1
        # Asked for before anything is sent, so that failures of the connection are seen.
        self._arrivals = [data.arrival(self._reply_handle)]
        self._arrivals += [data.arrival(handle) for handle in self._output_handles.values()]
        self._posts = []
        self._moved = [len(self._request), 0]
        for name in layout.inputs_apart:
            source = data.register(spec.inputs.data(name))
            self._passing.append(source)
            self._moved[0] += source.length
            self._posts.append(data.post(source, self._targets[name], wait=_QUEUE))
        for name, at in layout.inputs.items():
            value = spec.inputs.data(name)
            self._request[at : at + value.nbytes] = value
        microseconds = max(int(seconds * 1e6), 0)
        invocation = Invocation(self._channel, self._sequence, microseconds, spec.run_id)
        invocation.write(self._request)
        self._begun_ns = time.monotonic_ns()
        head = data.post(self._source, self._target, priority=Priority.DECODE, wait=_QUEUE)
        self._posts.append(head)

    def wait(self, timeout: float) -> CallEnd | None:
        """The end, or None when it has not come within `timeout` seconds.

        Raises GEN0418 when the connection broke, GEN0432 for a reply that is none.
        """
        try:
            self._arrivals[0].result(timeout)
        except TimeoutError:
            if any(post.done() and post.exception(0) is not None for post in self._posts):
                return self._refused()
            return None
        except TransferError as error:
            raise self._broken("its reply", error) from None
        reply = Reply.read(self._reply, self._devices, self._sequence)
        spent = (time.monotonic_ns() - self._begun_ns) // 1000
        if reply.status is Status.DONE:
            self._finish(_TAIL)
        self._moved[1] = len(self._reply) + sum(map(len, self._outputs.values()))
        total = reply.report.total_us if reply.report is not None else 0
        return CallEnd(
            reply.report,
            reply.error,
            reply.status is not Status.UNADMITTED,
            reply.last,
            max(spent - total, 0),
        )

    def _refused(self) -> CallEnd | None:
        """What is known when the daemon did not take a message: it closed the channel.

        It says so in a reply of its own; when that has not come either, nothing was begun.
        """
        if self._arrivals[0].done():
            return None
        return CallEnd(None, None, False, True, 0)

    def _finish(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        for value, arrival in zip(self._outputs, self._arrivals[1:], strict=True):
            try:
                arrival.result(max(end - time.monotonic(), 0.001))
            except (TransferError, TimeoutError) as error:
                raise self._broken(f"the output {value!r}", error) from None

    def _broken(self, what: str, error: Exception) -> GenieError:
        return GenieError("GEN0418", f"{what} did not arrive", cause=str(error), remedy="run again")

    def outputs(self) -> Mapping[str, tuple[str, memoryview]]:
        """Value → (concrete type, dense bytes), valid until the next `start`."""
        found = {}
        for value, text in self._types.items():
            data = self._outputs.get(value)
            if data is None:
                at = self._layout.outputs[value]
                data = self._reply[at : at + self._sizes[value]]
            found[value] = (text, data)
        return found

    def moved(self) -> tuple[int, int]:
        """(bytes sent, bytes received) of the last invocation's messages, without framing."""
        return self._moved[0], self._moved[1]

    def settle(self) -> None:
        """The invocation is over: let go of the caller's arrays."""
        for source in self._passing:
            with contextlib.suppress(TransferError):  # withdrawn with its connection
                self._data.deregister(source)
        self._passing.clear()

    # -- the end ----------------------------------------------------------------------------

    def close(self, *, told: bool = False) -> None:
        """Give the channel up. `told`: the daemon has closed it by itself. Never raises."""
        if not told and self._link.lost() is None:
            request = m.CallRequestId(session=self._link.session, call=self._call)
            with contextlib.suppress(GenieError):  # one that cannot be asked closes by its lease
                self._link.channel.call("CloseCall", request, m.Empty, 5.0)
        self._withdraw()

    def _register(self, buffer: memoryview) -> DMAHandle:
        handle = self._data.register(buffer)
        self._mine.append(handle)
        return handle

    def _withdraw(self) -> None:
        self.settle()
        for handle in self._mine:
            with contextlib.suppress(TransferError):
                self._data.deregister(handle)
        self._mine.clear()


def _handle(data: Handle) -> DMAHandle:
    try:
        return DMAHandle.from_json(data)
    except TransferError as error:
        raise error.to_genie_error() from None
