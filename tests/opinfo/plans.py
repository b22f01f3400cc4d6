"""The path through plans: export, capture, plan text, strict parse, verifier, embedded runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from genie import driver
from genie.capture.capture import capture
from genie.capture.exporter import export
from genie.capture.store import save
from genie.client import LoadedPlan, Session, connect
from genie.client import Tensor as Given
from genie.graph import check as legal
from genie.graph.entries import FORWARD, Entries
from genie.spec import LoadedSpec
from genie_runtime.plans import view
from genie_schemas import rng, writer
from genie_schemas.reader import read_plan
from genie_schemas.spec import Spec
from genie_schemas.verify import verify
from tests.opinfo.samples import SEED, Case

_BITS = {
    torch.bfloat16: torch.uint16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}
_OF_BITS = {str(dtype).removeprefix("torch."): dtype for dtype in _BITS}
_SESSION_PLANS = 200
"""Plans that one session installs: a node keeps up to 256."""


class Plans:
    """Compiles each case and runs its plan in a session of the embedded runtime."""

    name = "plans"

    @property
    def counts(self) -> tuple[int, int]:
        """Nothing is left to the host; every case is a run."""
        return 0, self._count

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="genie-opinfo-")
        self._session: Session | None = None
        self._count = 0
        self._open()  # eager then computes with as many threads
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            self._session.close()
        self._folder.cleanup()

    def run(self, case: Case) -> list[Any]:
        """The results of the case's plan as leaves."""
        text, folder = self._compile(case)
        plan = read_plan(text)
        verify(plan)
        session = self._open()
        loaded = session.install(LoadedPlan(view(plan, text), folder))
        inputs = {name: given(tensor) for name, tensor in case.inputs.items()}
        if rng.FEATURE in plan.requires:
            inputs[rng.SEED] = Given("int64", np.array(SEED))
        result = session.run(inputs, plan=loaded)
        both = {**{n: taken(t) for n, t in result.tensors.items()}, **result.literals}
        # What tells the size of another output has been used up by the client.
        return [both[o.name] for o in plan.entrypoints["forward"].outputs if o.name in both]

    def _open(self) -> Session:
        self._count += 1
        if self._session is not None and self._count % _SESSION_PLANS == 0:
            self._session.close()
            self._session = None
        if self._session is None:
            self._session = connect()
            torch.set_num_threads(self._session.links[0].threads)
        return self._session

    def _compile(self, case: Case) -> tuple[str, Path]:
        """Every stage of the driver, with the one that has a child process in this process."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        path = Path(__file__)
        spec = spec_of(case)
        program = export(case.module, spec, path, path.name)
        captured = capture(case.module, program, spec, path.name, lambda node: None)
        constants = folder / "constants.safetensors"
        save(captured.tensors, constants)
        work = driver.Work(
            driver.Request(path, Path("opinfo.yaml"), {}, folder),
            spec=LoadedSpec(Path("opinfo.yaml"), spec, "0" * 64, None),
            entries=Entries({FORWARD: captured.graph}),
            constants=constants,
        )
        legal(captured.graph, "capture")
        for name, stage in driver.STAGES:
            if name not in ("spec", "capture"):
                work = stage(work)
        assert work.plan is not None
        for constant in work.plan.constants.values():
            target = folder / constant.source.partition("#")[0]
            if not target.exists():
                constants.rename(target)
        return writer.dumps(work.plan), folder


def spec_of(case: Case) -> Spec:
    """The spec that a user would write for the case."""
    inputs = {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in case.inputs.items()
    }
    return Spec.model_validate({"genie": 1, "name": "opinfo", "inputs": inputs, "random": "seeded"})


def given(tensor: Tensor) -> Given:
    """A tensor as the client takes it."""
    name = str(tensor.dtype).removeprefix("torch.")
    bits = _BITS.get(tensor.dtype)
    return Given(name, (tensor if bits is None else tensor.view(bits)).numpy())


def taken(tensor: Given) -> Tensor:
    """A tensor of what the client gives back."""
    found = torch.from_numpy(np.ascontiguousarray(tensor.array).reshape(tensor.shape))
    dtype = _OF_BITS.get(tensor.dtype)
    return found if dtype is None else found.view(dtype)


__all__ = ["Plans", "given", "spec_of", "taken"]
