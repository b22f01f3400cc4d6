"""Running traces: a plan for each graph, kept; tensors that stay on the device between runs."""

from __future__ import annotations

import array
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genie.client import Session
from genie.client.default import Target, default_target
from genie.client.tensors import STORAGE, Tensor
from genie.lazy._counters import COUNTERS, user_line, user_place
from genie.lazy._history import History, Run
from genie.lazy._layouts import Unsupported
from genie.lazy._local import LocalProgram, local_program
from genie.lazy._plan import LazyPlan, make_plan
from genie.lazy._trace import Graph, Recorder, read_trace
from genie_schemas.errors import GenieError
from genie_schemas.messages import LazyCounters
from genie_schemas.types import FROM_TORCH

if TYPE_CHECKING:
    from genie.semantics.annotate import Analysis

__all__ = ["Runner"]

LOCAL_OPS = 2000
"""A longer trace is not searched for what the host could evaluate by itself."""

LOCAL_BYTES = 1 << 16
"""No tensor that the host evaluates by itself is larger."""

MAX_PLANS = 96
"""Plans that a program has on the device at once, which keeps 256 for all; the one used longest ago
goes first."""

_log = logging.getLogger("genie.lazy")


def to_client(tensor: torch.Tensor) -> Tensor:
    """A CPU tensor as the client sends it; no copy."""
    name = str(tensor.dtype).removeprefix("torch.")
    bits = STORAGE.get(FROM_TORCH[name])
    held = tensor.detach()
    return Tensor(name, held.view(getattr(torch, bits)).numpy() if bits else held.numpy())


def from_client(tensor: Tensor) -> torch.Tensor:
    """What came back, as a CPU tensor of its own."""
    found = torch.from_numpy(np.ascontiguousarray(tensor.array).reshape(tensor.array.shape))
    dtype: torch.dtype = getattr(torch, tensor.dtype)
    return found if found.dtype == dtype else found.view(dtype)


class Runner:
    """The program's session and plans. One for a process; thread-safe."""

    def __init__(self, recorder: Any, modules: Any) -> None:
        """`recorder` is the extension, or what stands in for it."""
        self._recorder = recorder
        self._describe = Recorder(recorder.describe, recorder.layout)
        self._modules = modules
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._endpoint: str | None = None
        self._plans: OrderedDict[bytes, LazyPlan] = OrderedDict()
        self._handles = itertools.count(1)
        self._dropped: set[int] = set()
        self._local: OrderedDict[bytes, LocalProgram | None] = OrderedDict()
        self._quiet_steps = 0
        self._last: tuple[LazyPlan, list[int], list[torch.Tensor]] | None = None
        self._history = History()

    # -- the session ------------------------------------------------------------------------

    def connect(self, target: Target) -> None:
        """Use this daemon, or the embedded runtime, from now on.

        Raises GEN0263 when tensors lie in another session already, GEN05xx when it does not answer.
        """
        with self._lock:
            if self._session is not None:
                raise GenieError(
                    "GEN0263",
                    "the lazy device is connected already",
                    user_place(),
                    cause=f"its tensors lie on {self._endpoint or 'the embedded runtime'}",
                    remedy="call genie.lazy.connect() before the first tensor goes to the device",
                )
            self._session = target.open()
            for link in self._session.links:
                link.tell(self.counted)
            self._endpoint = target.endpoint

    def session(self) -> Session:
        """The session, opened at first use on the process's default target."""
        with self._lock:
            if self._session is None:
                self.connect(default_target())
            assert self._session is not None  # noqa: S101 - connect() has set it
            return self._session

    def counted(self) -> LazyCounters:
        """What the device has counted since the program began: a daemon's status shows it."""
        names = set(LazyCounters.model_fields) - {"ops_intercepted"}
        intercepted: int = self._recorder.counts()["ops_intercepted"]
        ever = {name: COUNTERS.ever(name) for name in names}
        return LazyCounters(ops_intercepted=intercepted, **ever)

    def close(self) -> None:
        """End the session: the device's tensors are gone."""
        with self._lock:
            session, self._session = self._session, None
            self._plans.clear()
        if session is not None:
            session.close()

    # -- what the recorder calls --------------------------------------------------------------

    def fetch(self, tensors: list[torch.Tensor], why: str) -> list[torch.Tensor]:
        """Run what is pending; the content of tensors on the device, as CPU tensors."""
        with self._lock:
            local = self._locally(tensors)
            if local is not None:
                COUNTERS.add("host_evaluations")
                return local
            self._quiet_steps = 0
            COUNTERS.synchronised(why)
            return self._run([t.resolve_conj().resolve_neg() for t in tensors])

    def flush(self) -> None:
        """Run what is pending."""
        with self._lock:
            if not self._recorder.idle():
                self._run([])

    def stepped(self, *_: Any) -> None:
        """An optimiser has made a step. Steps that nobody looks at run one by one.

        So a loop without synchronisation has the same graph every time, and its trace stays short.
        """
        with self._lock:
            self._quiet_steps += 1
            if self._quiet_steps >= 2:
                self.flush()

    def last(self) -> tuple[LazyPlan, list[int], list[torch.Tensor]]:
        """The last run's plan, leaves and tensors of the host: what the benchmark repeats."""
        if self._last is None:
            raise GenieError("GEN0426", "nothing has run on the lazy device")
        return self._last

    def analysis(self) -> Analysis:
        """What the last call of a model, or the last run, was for; GEN0426 when nothing has run."""
        from genie.lazy._semantics import analysis

        with self._lock:
            self.flush()
            self.last()
            held: dict[int, str] = {}
            for tensor, kind in self._modules.tensors():
                held.setdefault(self._recorder.handle(tensor), kind)
            held.pop(0, None)
            return analysis(self._history.runs, held, self._literal)

    def repeat(self) -> None:
        """Make the last run once more and forget what it gives."""
        plan, leaves, hosts = self.last()
        handles = [next(self._handles) for _ in plan.kept]
        self._execute(plan, leaves, hosts, handles)
        self._dropped |= set(handles)

    def _locally(self, tensors: list[torch.Tensor]) -> list[torch.Tensor] | None:
        """The content of small tensors that nothing on the device has a part in."""
        if self._recorder.pending_ops() > LOCAL_OPS or sum(t.nbytes for t in tensors) > LOCAL_BYTES:
            return None
        seen = self._recorder.peek([t.resolve_conj().resolve_neg() for t in tensors])
        key: bytes = seen.words
        if key not in self._local:
            words = array.array("I", key).tolist()
            try:
                graph = read_trace(words, self._describe, self._modules)
                self._local[key] = local_program(graph, LOCAL_BYTES)
            except Unsupported:
                self._local[key] = None
            if len(self._local) > MAX_PLANS:
                self._local.popitem(last=False)
        program = self._local[key]
        return None if program is None else program.run(seen.hosts)

    def upload(self, tensor: torch.Tensor) -> int:
        """Send a dense CPU tensor; the number under which the device keeps it."""
        with self._lock:
            layout = (_number(tensor), list(tensor.shape), list(tensor.stride()), 0)
            from genie.lazy._layouts import Layout, type_text

            text = type_text(Layout(*layout))
            plan = self._planned(text.encode(), lambda: make_plan(_upload_graph(text)))
            handle = next(self._handles)
            COUNTERS.add("uploads")
            COUNTERS.add("upload_bytes", tensor.nbytes)
            self._execute(plan, [], [tensor], [handle])
            return handle

    # -- a run ------------------------------------------------------------------------------

    def _run(self, fetch: list[torch.Tensor]) -> list[torch.Tensor]:
        # Asked before the trace ends: no later trace can read what was gone by then.
        gone = self._dropped | set(self._recorder.take_dropped())
        taken = self._recorder.take(fetch)
        self._dropped = gone & set(taken.leaves)
        drop = gone - self._dropped
        if not taken.kept and not fetch:
            self._dropped = gone
            return []  # whatever was recorded, nobody has kept anything of it
        handles = [next(self._handles) for _ in range(taken.kept)]
        try:
            plan = self._plan(taken)
            COUNTERS.add("graphs_run")
            COUNTERS.add("graph_ops", taken.ops)
            COUNTERS.totals["last_graph_ops"] = taken.ops
            self._last = plan, taken.leaves, taken.hosts
            run = Run(taken.words, tuple(taken.leaves), tuple(handles))
            self._history.add(self._modules.calls, run)
            found = self._execute(plan, taken.leaves, taken.hosts, handles, drop)
        except BaseException:
            taken.settle([])
            raise
        taken.settle(handles)
        return found

    def _plan(self, taken: Any) -> LazyPlan:
        key: bytes = taken.words

        def make() -> LazyPlan:
            COUNTERS.add("graph_cache_misses")
            return make_plan(self._graph(key))

        known = COUNTERS.totals["graph_cache_misses"]
        plan = self._planned(key, make)
        if COUNTERS.totals["graph_cache_misses"] == known:
            COUNTERS.add("graph_cache_hits")
        return plan

    def _planned(self, key: bytes, make: Callable[[], LazyPlan]) -> LazyPlan:
        """The plan under a key, made where there is none; the one used longest ago makes room."""
        plan = self._plans.get(key)
        if plan is not None:
            self._plans.move_to_end(key)
            return plan
        plan = self._plans[key] = make()
        if len(self._plans) > MAX_PLANS:
            _, old = self._plans.popitem(last=False)
            digest = old.loaded.digest
            if all(other.loaded.digest != digest for other in self._plans.values()):
                self.session().forget(old.loaded)
        return plan

    def _graph(self, words: bytes) -> Graph:
        try:
            return read_trace(array.array("I", words).tolist(), self._describe, self._modules)
        except Unsupported as error:
            raise GenieError(
                "GEN0261",
                f"no plan can hold {error}",
                user_place(),
                remedy="move this part of the program to the CPU",
            ) from None

    def _literal(self, words: bytes) -> Graph:
        numbers = array.array("I", words).tolist()
        return read_trace(numbers, self._describe, self._modules, literal=True)

    def _execute(
        self,
        plan: LazyPlan,
        leaves: list[int],
        hosts: list[torch.Tensor],
        handles: list[int],
        drop: Collection[int] = (),
    ) -> list[torch.Tensor]:
        session = self.session()
        session.install(plan.loaded)
        try:
            result = session.run(
                {n: to_client(t) for n, t in zip(plan.hosts, hosts, strict=True)},
                plan=plan.loaded,
                resident={n: _hex(h) for n, h in zip(plan.leaves, leaves, strict=True)},
                keep={n: _hex(h) for n, h in zip(plan.kept, handles, strict=True)},
                drop=[_hex(h) for h in sorted(drop)],
            )
        except GenieError as error:
            # Operators run when a value is looked at: the line that did so is all that is known.
            line = user_line()
            error.cause = "; ".join(filter(None, [error.cause, f"the program waited at {line}"]))
            error.context = {**(error.context or {}), "user_line": line}
            raise
        return [from_client(result.tensors[name]) for name in plan.fetched]


def _hex(handle: int) -> str:
    return f"{handle:032x}"


def _number(tensor: torch.Tensor) -> int:
    from genie.lazy._layouts import DTYPES

    name = str(tensor.dtype).removeprefix("torch.")
    return next(number for number, known in DTYPES.items() if known == name)


def _upload_graph(text: str) -> Graph:
    from genie.graph.ir import Node, Value
    from genie_schemas.args import Ref

    sent, kept = Value("x0", text, 0), Value("y0", text, 1)
    node = Node("aten.clone.default", (Ref("x0"),), (), (kept,), "")
    return Graph([node], hosts=[sent], kept=[kept])
