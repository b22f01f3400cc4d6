"""Plans for tests of `show` and `diff`: golden ones, and edited ones whose digests fit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genie_schemas import canonical, writer
from genie_schemas.plan import ExecutionPlan

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
COMPAT = GOLDEN / "compat" / "1.0"


def data_of(name: str) -> dict[str, Any]:
    """The JSON values of a golden plan, ours to change; the frozen one where there is one."""
    found = next(p for p in (COMPAT, GOLDEN) if (p / f"{name}.plan.json").exists())
    data: dict[str, Any] = canonical.loads(
        (found / f"{name}.plan.json").read_text(encoding="utf-8")
    )
    return data


def edited(data: dict[str, Any], edit: Callable[[dict[str, Any]], object]) -> ExecutionPlan:
    """A plan of `data` after `edit`, with program keys and digest that fit."""
    data = copy.deepcopy(data)
    edit(data)
    keys = {key: writer.program_key(program) for key, program in data["programs"].items()}
    data["programs"] = {keys[key]: program for key, program in data["programs"].items()}
    for step in data["steps"]:
        if step.get("program") in keys:
            step["program"] = keys[step["program"]]
    data["plan_digest"] = writer.plan_digest(data)
    return ExecutionPlan.model_validate(data)


def step(data: dict[str, Any], name: str) -> dict[str, Any]:
    """A step by its id."""
    found: dict[str, Any] = next(s for s in data["steps"] if s["id"] == name)
    return found


def ops(data: dict[str, Any], step_id: str) -> list[dict[str, Any]]:
    """The operators that a compute step runs."""
    found: list[dict[str, Any]] = data["programs"][step(data, step_id)["program"]]["ops"]
    return found
