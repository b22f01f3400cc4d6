"""One workload in the four modes: the same request, made by each in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch.utils import _pytree as pytree

from genie.bench.semantics._blind import Blind
from genie.bench.semantics._cases import Case, Constants, Model
from genie.bench.semantics._genie import Daemons
from genie.bench.semantics._naive import Naive
from genie.bench.semantics._remote import Remote, ServerProcess
from genie.bench.semantics._walk import Walk, sizes
from genie.bench.semantics._wires import Wires
from genie.client.session import Session
from genie_schemas.closing import Closing

__all__ = ["MODES", "REMOTE", "Contest", "Machines", "Sessions"]

REMOTE = ("naive", "blind", "genie")
MODES = ("local", *REMOTE)

_TOLERANCE = 1e-5


class Machines(Closing):
    """What runs beside this process: two devices for each remote mode, and the relay."""

    def __init__(self, threads: int = 1) -> None:
        """Start everything."""
        self._stack = ExitStack()
        try:
            self.wires = self._stack.enter_context(Wires())
            self.daemons = self._stack.enter_context(Daemons(2, threads, self.wires))
            self.remotes = {mode: self._servers(mode, threads) for mode in ("naive", "blind")}
        except BaseException:
            self.close()
            raise

    def _servers(self, mode: str, threads: int) -> dict[str, Remote]:
        found = {}
        for device in ("d0", "d1"):
            server = self._stack.enter_context(ServerProcess(threads))
            remote = Remote(self.wires.open(server.port, mode), server.key)
            found[device] = self._stack.enter_context(remote)
        return found

    def close(self) -> None:
        """End everything."""
        self._stack.close()


class Sessions(Closing):
    """Two sessions with a case's plan: one to take times in, one whose links are all counted.

    The daemons know the constants by digest when the second one comes: they move once.
    """

    def __init__(self, case: Case, machines: Machines) -> None:
        """Open both and install the plan."""
        self._stack = ExitStack()
        try:
            self.timed, self.counted = (
                self._stack.enter_context(machines.daemons.session(case.devices, counted=counted))
                for counted in (False, True)
            )
            for session in (self.timed, self.counted):
                session.install(case.plan)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End both."""
        self._stack.close()


class Contest(Closing):
    """A case whose entry point is `forward`, ready in every mode."""

    def __init__(self, case: Case, model: Model, machines: Machines) -> None:
        """Install the plan on the daemons and check that every mode computes the same.

        Raises RuntimeError when one does not.
        """
        plan = case.plan.installed.plan
        constants = Constants(case.plan)
        self.case = case
        self.inputs = model.inputs()
        self._module = model.module
        self._walk = Walk(plan, "forward", sizes(plan, "forward", lambda n: self.inputs[n].shape))
        self._outputs = [o.name for o in self._walk.entry.outputs]
        self.naive_client = Naive(constants, machines.remotes["naive"])
        self.blind_client = Blind(constants, machines.remotes["blind"])
        self._sessions = Sessions(case, machines)
        self.run: Mapping[str, Callable[[], list[torch.Tensor]]] = {
            "local": self._local,
            "naive": self._naive,
            "blind": self._blind,
            "genie": partial(self._genie, self._sessions.timed),
        }
        self.counted: Mapping[str, Callable[[], list[torch.Tensor]]] = {
            **self.run,
            "genie": partial(self._genie, self._sessions.counted),
        }
        """The same, through links that are all counted."""
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Run each mode as often as makes it warm: Genie opens its channel at the second run."""
        expected = self._local()
        for mode in REMOTE:
            for _ in range(3 if mode == "genie" else 1):
                found = self.run[mode]()
                found = self.counted[mode]() if mode == "genie" else found
            for one, other in zip(found, expected, strict=True):
                if not torch.allclose(one, other, _TOLERANCE, _TOLERANCE):
                    raise RuntimeError(f"{self.case.label}: {mode} computes something else")

    def _local(self) -> list[torch.Tensor]:
        with torch.inference_mode():
            return list(pytree.tree_leaves(self._module(**self.inputs)))

    def _naive(self) -> list[torch.Tensor]:
        found = self.naive_client.run(self._walk, self.inputs)
        return [found[name] for name in self._outputs]

    def _blind(self) -> list[torch.Tensor]:
        held = self.blind_client.run(self._walk, self.inputs)
        found = self.blind_client.read([held[name] for name in self._outputs])
        self.blind_client.drop(held.values())
        return found

    def _genie(self, session: Session) -> list[torch.Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in self.inputs.items()}
        outputs = session.run(arrays).outputs
        return [torch.from_numpy(outputs[name]) for name in self._outputs]

    def close(self) -> None:
        """Let go of what the servers keep, and end the session."""
        self.blind_client.forget()
        self._sessions.close()
