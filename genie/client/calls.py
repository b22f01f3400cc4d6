"""Invocations over the data plane: channels that stay open, one message a node and one back."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from genie.client.ended import Ended, good, left, tensors
from genie.client.link import Call, CallEnd, LegEnd, NodeLink, RunSpec
from genie_schemas.errors import GenieError
from genie_schemas.messages import RunReport

__all__ = ["Calls"]

Links = Mapping[str, tuple[str, NodeLink, NodeLink]]
"""Transfer step → (link id, source, destination) for steps between two nodes."""

MAX_IDLE = 16
"""Channels that a session keeps open without using them, over all plans and sizes."""

_MAX_SEEN = 4096
_SLICE = 0.1
_NO_ROOM = ("GEN0412", "GEN0413", "GEN0470", "GEN0472", "GEN0511")

_Key = tuple[str, str, tuple[tuple[str, int], ...]]


class _Set:
    """A channel over all nodes of a plan, for one set of dims."""

    def __init__(self, key: _Key, calls: list[tuple[NodeLink, Call]]) -> None:
        self.key = key
        self.calls = calls

    def close(self, told: bool = False) -> None:
        for _, call in reversed(self.calls):
            call.close(told=told)


class Calls:
    """The channels of a session's plan. Thread-safe: each invocation has a channel to itself.

    The first run of an entry point with certain dims does not open one: a channel costs as much
    as a run over the control connection, and many a session runs once.
    """

    def __init__(
        self,
        nodes: list[NodeLink],
        connect: Callable[[RunSpec], Links],
        check_alive: Callable[[], None],
    ) -> None:
        self._nodes = nodes
        self._connect = connect
        self._check_alive = check_alive
        self._lock = threading.Lock()
        self._idle: list[_Set] = []
        self._seen: OrderedDict[_Key, None] = OrderedDict()

    def run(self, spec: RunSpec, end: float) -> Ended | None:
        """Carry a run out; None when it has to go over the control connection, nothing begun."""
        key = (spec.plan.digest, spec.entrypoint, tuple(sorted(spec.inputs.dims.items())))
        before = [0, 0]
        channel = self._take(key)
        if channel is None:
            if not self._known(key):
                return None
            start = [node.control_traffic() for node in self._nodes]
            channel = self._open(key, spec)
            if channel is None:
                return None
            after = [node.control_traffic() for node in self._nodes]
            before = [sum(a[i] - b[i] for a, b in zip(after, start, strict=True)) for i in (0, 1)]
        try:
            ends = self._invoke(channel, spec, end)
            if not all(found.admitted for found in ends):
                channel.close()
                return None
            ended = self._ended(channel, ends, before)
        except BaseException:
            channel.close()
            raise
        for _, call in channel.calls:
            call.settle()
        if any(found.last for found in ends):
            channel.close()
        else:
            self._give_back(channel)
        return ended

    def _invoke(self, channel: _Set, spec: RunSpec, end: float) -> list[CallEnd]:
        """Send to every node, then hear every node. Raises the first error that comes."""
        for _, call in channel.calls:
            call.start(spec, end - time.monotonic())
        waiting = dict(enumerate(call for _, call in channel.calls))
        found: dict[int, CallEnd] = {}
        while waiting:
            for index, call in list(waiting.items()):
                # Taking turns: a node that fails is heard although another one still computes.
                seconds = min(_SLICE, left(spec, end)) if len(channel.calls) > 1 else _SLICE
                ended = call.wait(seconds)
                if ended is None:
                    self._check_alive()
                    left(spec, end)
                    continue
                if ended.error is not None and ended.admitted:
                    raise ended.error
                if not ended.admitted:
                    return [ended]
                found[index] = ended
                del waiting[index]
        return [found[index] for index in sorted(found)]

    def _ended(self, channel: _Set, ends: list[CallEnd], control: list[int]) -> Ended:
        reports: list[RunReport] = [good(LegEnd(found.report, None)) for found in ends]
        ended = Ended(reports, travel_us=sum(found.travel_us for found in ends))
        sent, received = control
        for _, call in channel.calls:
            ended.values |= tensors(call.outputs())
            moved = call.moved()
            sent, received = sent + moved[0], received + moved[1]
        ended.traffic = {"sent": sent, "received": received}
        return ended

    # -- the pool ---------------------------------------------------------------------------

    def _take(self, key: _Key) -> _Set | None:
        with self._lock:
            for at in range(len(self._idle) - 1, -1, -1):
                if self._idle[at].key == key:
                    return self._idle.pop(at)
        return None

    def _known(self, key: _Key) -> bool:
        """Whether a run like this came before; it has from now on."""
        with self._lock:
            known = key in self._seen
            self._seen[key] = None
            self._seen.move_to_end(key)
            if len(self._seen) > _MAX_SEEN:
                self._seen.popitem(last=False)
        return known

    def _open(self, key: _Key, spec: RunSpec) -> _Set | None:
        """Open a channel on every node; None when one has no room, or cannot."""
        links = self._connect(spec)
        calls: list[tuple[NodeLink, Call]] = []
        channel = _Set(key, calls)
        try:
            for node in self._nodes:
                mine = {s: link for s, (link, src, dst) in links.items() if node in (src, dst)}
                call = node.open_call(spec, mine)
                if call is None:
                    channel.close()
                    return None
                calls.append((node, call))
            targets = {s: handle for _, call in calls for s, handle in call.incoming.items()}
            for node, call in calls:
                wanted = {
                    step: targets[step]
                    for step, (_, src, _) in links.items()
                    if src is node and step in targets
                }
                if wanted:
                    call.target(wanted)
        except BaseException as error:
            channel.close()
            if isinstance(error, GenieError) and error.code in _NO_ROOM:
                return None
            raise
        return channel

    def _give_back(self, channel: _Set) -> None:
        with self._lock:
            self._idle.append(channel)
            oldest = self._idle.pop(0) if len(self._idle) > MAX_IDLE else None
        if oldest is not None:
            oldest.close()

    def drop(self) -> None:
        """Close every idle channel: a link between nodes broke, or the plan is installed anew."""
        with self._lock:
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()
