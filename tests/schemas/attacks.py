"""A real plan as JSON data, and how an attacker makes a changed one look whole again.

`sealed` recomputes program keys, what devices need, and the digest, so that only the verifier
stands between a changed plan and its execution.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from genie_schemas import optable, writer
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.expr import ExprError
from genie_schemas.plan import ExecutionPlan
from genie_schemas.reader import read_plan
from genie_schemas.types import TypeTextError
from genie_schemas.verify import peak_bytes, verify
from tests.capture.compiling import Compiled, compile_module, spec_of

Data = dict[str, Any]
Change = Callable[[Data], None]


class Net(nn.Module):
    """Two devices, a repeated layer, in-place calls, a view that crosses, a constant output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Tanh()
        )
        self.second = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
        self.register_buffer("scale", torch.arange(4.0))

    def forward(self, x: Tensor) -> dict[str, Any]:
        hidden = self.first(x)
        y = self.second(hidden) + hidden[:, :4]
        y.mul_(self.scale)
        return {"y": y, "hidden": hidden, "scale": self.scale, "n": 3, "rows": x.shape[0]}


@cache
def original() -> Compiled:
    torch.manual_seed(0)
    stages = [("d0", ["first"]), ("d1", ["second"])]
    return compile_module(Net().eval(), spec_of({"x": ("float32", ["b", 6])}, stages=stages))


def data() -> Data:
    """The original plan as it stands in its file."""
    parsed: Data = json.loads(original().text)
    return copy.deepcopy(parsed)


def sealed(plan: Data, *, keys: bool = True, needs: bool = True, opset: bool = True) -> str:
    """The text of the changed plan, with whatever can be recomputed made right."""
    if opset:
        used = {op["op"] for p in plan["programs"].values() for op in p["ops"]}
        found = {name: optable.lookup(name) for name in sorted(used)}
        plan["opset"]["schemas"] = {n: i.schema for n, i in found.items() if i is not None}
    if keys:
        renamed = {old: writer.program_key(p) for old, p in plan["programs"].items()}
        plan["programs"] = {renamed[old]: p for old, p in plan["programs"].items()}
        for step in plan["steps"]:
            if step.get("program") in renamed:
                step["program"] = renamed[step["program"]]
    if needs:
        try:
            peaks = peak_bytes(ExecutionPlan.model_validate(plan))
            for name, device in plan["devices"].items():
                device["needs"] = peaks[name]
        except (ValueError, KeyError, ExprError, TypeTextError):
            pass  # then the verifier will not come to memory
    plan["plan_digest"] = writer.plan_digest(plan)
    return json.dumps(plan)


def codes(text: str) -> set[str]:
    """The codes with which reading and verifying refuse a plan; none when they accept it."""
    try:
        verify(read_plan(text))
    except GenieErrors as errors:
        assert all(str(e) and e.remedy for e in errors.errors)
        return {e.code for e in errors.errors}
    except GenieError as error:
        assert str(error)
        assert error.remedy
        return {error.code}
    return set()


def program_of(plan: Data, step: str) -> Data:
    """The program of a compute step whose id begins like this."""
    found = next(s for s in plan["steps"] if s["id"].startswith(step) and s["kind"] == "compute")
    program: Data = plan["programs"][found["program"]]
    return program


def step_of(plan: Data, kind: str, start: str = "") -> Data:
    """The first step of a kind whose id begins like this."""
    found: Data = next(s for s in plan["steps"] if s["kind"] == kind and s["id"].startswith(start))
    return found


def without(plan: Data, step: Data) -> None:
    """Take a step out of the plan and of its entry point."""
    plan["steps"].remove(step)
    plan["entrypoints"]["forward"]["steps"].remove(step["id"])


def insert(plan: Data, at: int, step: Data) -> None:
    """Put a step into the plan and into its entry point."""
    plan["steps"].insert(at, step)
    plan["entrypoints"]["forward"]["steps"] = [s["id"] for s in plan["steps"]]


def reordered(plan: Data) -> None:
    """Let the entry point run its steps in the order of the plan."""
    plan["entrypoints"]["forward"]["steps"] = [s["id"] for s in plan["steps"]]


class Attacks:
    """The attacks of one module: each changes a plan in place, and is refused with its code."""

    def __init__(self) -> None:
        self.cases: dict[str, tuple[str, Change]] = {}

    def __call__(self, code: str) -> Callable[[Change], Change]:
        """Decorates an attack."""

        def add(change: Change) -> Change:
            assert change.__name__ not in self.cases
            self.cases[change.__name__] = (code, change)
            return change

        return add

    def check(self, name: str) -> None:
        """Attack the original, however well the change is hidden."""
        code, change = self.cases[name]
        plan = data()
        change(plan)
        assert json.dumps(plan) != json.dumps(data()), "the attack changed nothing"
        found = codes(sealed(plan))
        assert code in found, found
