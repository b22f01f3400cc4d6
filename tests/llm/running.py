"""Language models' plans on real executors, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from genie_runtime.executors.inprocess import InProcessExecutor
from genie_runtime.ports import DeviceSpec, Generation, StateUse
from genie_schemas.constants import ConstantFiles
from genie_schemas.plan import ExecutionPlan
from genie_schemas.spec import Spec
from genie_schemas.types import DTYPES, parse_type
from tests.plans_by_hand import HandMade
from tests.runtime.executors.generating import Ring, Station

MEMORY = 1 << 30


class Made(Protocol):
    """A compiled plan, and the folder with its constants."""

    @property
    def plan(self) -> ExecutionPlan: ...

    @property
    def folder(self) -> Path: ...


def spec(stages: Sequence[tuple[str, Sequence[str]]] = (), **llm: int) -> Spec:
    """A spec without inputs, with these bounds of the cache and these stages."""
    data: dict[str, Any] = {"genie": 1, "name": "net", "llm": llm}
    if stages:
        devices = dict.fromkeys(device for device, _ in stages)
        data["devices"] = [{"id": device, "kind": "cpu"} for device in devices]
        data["placement"] = {"stages": [{"device": d, "modules": list(m)} for d, m in stages]}
    return Spec.model_validate(data)


def constants(plan: ExecutionPlan, folder: Path) -> dict[str, Any]:
    """Constant name → its elements."""
    found = {}
    with ConstantFiles(folder) as files:
        for name, constant in plan.constants.items():
            kind = parse_type(constant.type)
            dtype = np.dtype(DTYPES[kind.dtype][0])
            raw = bytes(files.view(constant.source))
            found[name] = np.frombuffer(raw, dtype)
    return found


@contextlib.contextmanager
def stations(made: Made) -> Iterator[list[Station]]:
    """An executor for each device of the plan, with the plan installed."""
    plan = HandMade(made.folder, made.plan, constants(made.plan, made.folder))
    found: list[Station] = []
    try:
        for name in made.plan.devices:
            executor = InProcessExecutor(DeviceSpec(name, "cpu", 0, MEMORY), 1)
            found.append(Station(executor, plan, name))
        yield found
    finally:
        for station in found:
            station.executor.close(30)
            station.pool.close()


def padded(prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The inputs of prefill and generate, padded with a token that says something elsewhere."""
    ids = np.full((len(prompts), max(map(len, prompts))), 7, np.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    return {"input_ids": ids, "lengths": np.array([len(p) for p in prompts], np.int64)}


def generated(made: Made, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """The tokens that the plan's loop gives each prompt; -1 after a row's end."""
    inputs = padded(prompts)
    batch, prompt = inputs["input_ids"].shape
    with stations(made) as found:
        requests = [
            station.request(
                "generate",
                inputs,
                {"batch": batch, "prompt": prompt},
                state=StateUse("once", 0, keep=False),
                generation=Generation(count),
                run_key=f"loop-{station.device}",
            )
            for station in found
        ]
        ring = Ring(found, requests)
        for station, request in zip(found, requests, strict=True):
            station.executor.run(request, ring.listener(station))
        return ring.tokens()


def greedy(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    """The tokens of transformers' own greedy generation."""
    ids = torch.tensor([list(prompt)])
    with torch.no_grad():
        found = model.generate(
            ids, max_new_tokens=count, do_sample=False, attention_mask=torch.ones_like(ids)
        )
    return [int(token) for token in found[0, len(prompt) :]]
