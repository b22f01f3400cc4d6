"""ExecutionPlans written without the compiler, for tests of the runtime and the client.

`two_layers` is a small perceptron: one device, or its layers on two devices with a transfer
between them, and outputs on both. `slow` multiplies matrices for a while.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_schemas import constants, optable, writer
from genie_schemas.plan import ExecutionPlan
from genie_schemas.verify import peak_bytes, verify

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class HandMade:
    """A plan on disk with its weights, and what it must compute."""

    path: Path
    plan: ExecutionPlan
    weights: dict[str, Array]


def write_safetensors(folder: Path, name: str, tensors: dict[str, Array]) -> str:
    """Write float32 tensors under a content-addressed name; returns the file's name."""
    header: dict[str, Any] = {}
    body = b""
    for key, value in tensors.items():
        data = np.ascontiguousarray(value, np.float32).tobytes()
        span = [len(body), len(body) + len(data)]
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": span}
        body += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    raw = len(head).to_bytes(8, "little") + head + body
    file = f"{name}.{constants.digest(raw).removeprefix('blake3:')[:16]}.safetensors"
    (folder / file).write_bytes(raw)
    return file


def finish(folder: Path, data: dict[str, Any], weights: dict[str, Array]) -> HandMade:
    """Fill in constants, opset, needs and digest; verify; write plan and weights."""
    name = data["name"]
    file = write_safetensors(folder, name, weights)
    table = {}
    for key, value in weights.items():
        raw = np.ascontiguousarray(value, np.float32).tobytes()
        shape = ",".join(map(str, value.shape))
        table[key] = {
            "type": f"f32[{shape}]",
            "digest": constants.digest(raw),
            "bytes": len(raw),
            "source": f"{file}#{key}",
        }
    used = sorted({op["op"] for p in data["programs"].values() for op in p["ops"]})
    found = {op: optable.lookup(op) for op in used}
    zero = "sha256:" + "0" * 64
    full = {
        "format": "genie.execution_plan",
        "format_version": "1.0",
        "min_reader": "1.0",
        "plan_digest": zero,
        "requires": ["compute.aten"],
        "opset": {
            "torch": optable.captured_torch().partition("+")[0],
            "schemas": {op: info.schema for op, info in found.items() if info},
        },
        "provenance": {
            "spec": zero,
            "graph": zero,
            "weights": zero,
            "compiler": "by hand",
            "passes": [],
        },
        "links": {},
        "constants": table,
        "state": {},
        "loops": {},
        "advisory": {},
        **data,
    }
    keys = {old: writer.program_key(program) for old, program in full["programs"].items()}
    full["programs"] = {keys[old]: program for old, program in full["programs"].items()}
    for step in full["steps"]:
        if "program" in step:
            step["program"] = keys[step["program"]]
    plan = ExecutionPlan.model_validate(full)
    peaks = peak_bytes(plan)
    devices = {
        name: device.model_copy(update={"needs": peaks[name]})
        for name, device in plan.devices.items()
    }
    plan = plan.model_copy(update={"devices": devices})
    digest = writer.plan_digest(writer.plan_data(plan))
    plan = plan.model_copy(update={"plan_digest": digest})
    verify(plan)
    path = folder / f"{name}.plan.json"
    path.write_text(writer.dumps(plan))
    return HandMade(path, plan, weights)


def value(type_: str, device: str, nbytes: str) -> dict[str, str]:
    return {"type": type_, "bytes": nbytes, "device": device}


def policy(attempts: int = 4, timeout_ms: int = 30_000, backoff_ms: int = 10) -> dict[str, Any]:
    return {
        "default": {
            "max_attempts": attempts,
            "timeout_ms": timeout_ms,
            "backoff_ms": backoff_ms,
            "retry_on": [],
        }
    }


def two_layers(
    folder: Path,
    *,
    devices: int = 1,
    hidden: int = 32,
    seed: int = 0,
    kind: str = "cpu",
    swap: bool = False,
    least: int = 1,
) -> HandMade:
    """x f32[batch,16] → hidden (relu) → y f32[batch,4]; the outputs are y and hidden.

    With two devices, each returns one output. `swap` puts the first layer on d1; `least` is the
    smallest batch.
    """
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.standard_normal((hidden, 16), dtype=np.float32),
        "b1": random.standard_normal(hidden, dtype=np.float32),
        "w2": random.standard_normal((4, hidden), dtype=np.float32),
        "b2": random.standard_normal(4, dtype=np.float32),
    }
    d0, d1 = ("d0", "d1") if devices == 2 else ("d0", "d0")
    if swap:
        d0, d1 = d1, d0
    names = sorted({d0, d1})
    h_type, h_bytes = f"f32[batch,{hidden}]", f"batch*{hidden * 4}"
    ref = {"v": "x"}
    first = {
        "inputs": [
            {"name": "x", "type": "f32[batch,16]"},
            {"name": "w", "type": f"f32[{hidden},16]"},
            {"name": "b", "type": f"f32[{hidden}]"},
        ],
        "outputs": [{"name": "h", "type": h_type}],
        "scratch_bytes": f"batch*{hidden * 8}",
        "ops": [
            {"out": ["t"], "op": "aten.linear.default", "args": [ref, {"v": "w"}, {"v": "b"}]},
            {"out": ["h"], "op": "aten.relu.default", "args": [{"v": "t"}]},
        ],
    }
    second = {
        "inputs": [
            {"name": "x", "type": h_type},
            {"name": "w", "type": f"f32[4,{hidden}]"},
            {"name": "b", "type": "f32[4]"},
        ],
        "outputs": [{"name": "y", "type": "f32[batch,4]"}],
        "scratch_bytes": "batch*16",
        "ops": [
            {"out": ["y"], "op": "aten.linear.default", "args": [ref, {"v": "w"}, {"v": "b"}]},
        ],
    }
    values = {
        "x": value("f32[batch,16]", d0, "batch*64"),
        "h": value(h_type, d0, h_bytes),
        "y": value("f32[batch,4]", d1, "batch*16"),
    }
    steps: list[dict[str, Any]] = [
        {"id": f"first/load@{d0}", "kind": "load", "device": d0, "reads": ["w1", "b1"]},
        {"id": f"second/load@{d1}", "kind": "load", "device": d1, "reads": ["w2", "b2"]},
        {
            "id": f"first/compute@{d0}",
            "kind": "compute",
            "device": d0,
            "program": "first",
            "reads": ["x", "w1", "b1"],
            "writes": ["h"],
        },
    ]
    source = "h"
    if devices == 2:
        source = "h@d1"
        values[source] = value(h_type, d1, h_bytes)
        steps.append(
            {
                "id": "h/transfer@d0->d1",
                "kind": "transfer",
                "src": d0,
                "dst": d1,
                "reads": ["h"],
                "writes": [source],
            }
        )
    steps += [
        {"id": f"h/return@{d0}", "kind": "return", "device": d0, "reads": ["h"]},
        {
            "id": f"second/compute@{d1}",
            "kind": "compute",
            "device": d1,
            "program": "second",
            "reads": [source, "w2", "b2"],
            "writes": ["y"],
        },
        {"id": f"y/return@{d1}", "kind": "return", "device": d1, "reads": ["y"]},
    ]
    data = {
        "name": f"two-layers-{devices}",
        "dims": {"batch": {"min": least, "max": 8}},
        "devices": {name: {"kind": kind, "needs": 0} for name in names},
        "entrypoints": {
            "forward": {
                "inputs": [{"name": "x", "type": "f32[batch,16]", "device": d0}],
                "outputs": [
                    {"name": "y", "value": "y"},
                    {"name": "hidden", "value": "h"},
                    {"name": "label", "literal": 7},
                ],
                "steps": [step["id"] for step in steps],
            }
        },
        "programs": {"first": first, "second": second},
        "values": values,
        "policies": policy(),
        "steps": steps,
    }
    return finish(folder, data, weights)


def expected(made: HandMade, x: Array) -> dict[str, Array]:
    """What torch computes for the same weights; bits depend on its thread count."""
    import torch

    def tensor(array: Array) -> Any:
        return torch.from_numpy(array.copy())

    w = {name: tensor(array) for name, array in made.weights.items()}
    with torch.no_grad():
        h = torch.relu(torch.nn.functional.linear(tensor(x), w["w1"], w["b1"]))
        y = torch.nn.functional.linear(h, w["w2"], w["b2"])
    return {"y": y.numpy(), "hidden": h.numpy()}


def slow(folder: Path, *, ops: int = 200, size: int = 512, attempts: int = 4) -> HandMade:
    """x f32[size,size] times a constant, `ops` times: 1 to 5 ms an op at 512, 10 ops a step.

    Between steps a run can be cancelled; a step runs to its end.
    """
    matrix, nbytes = f"f32[{size},{size}]", str(size * size * 4)
    weights = {"w": np.eye(size, dtype=np.float32)}
    each = min(ops, 10)
    program = {
        "inputs": [{"name": "x", "type": matrix}, {"name": "w", "type": matrix}],
        "outputs": [{"name": f"t{each - 1}", "type": matrix}],
        "scratch_bytes": str(size * size * 4 * 2),
        "ops": [
            {
                "out": [f"t{i}"],
                "op": "aten.mm.default",
                "args": [{"v": f"t{i - 1}" if i else "x"}, {"v": "w"}],
            }
            for i in range(each)
        ],
    }
    values = {"x": value(matrix, "d0", nbytes)}
    steps: list[dict[str, Any]] = [
        {"id": "load@d0", "kind": "load", "device": "d0", "reads": ["w"]},
    ]
    last, count = "x", ops // each
    for i in range(count):
        made = "y" if i == count - 1 else f"v{i}"
        values[made] = value(matrix, "d0", nbytes)
        steps.append(
            {
                "id": f"part{i}/compute@d0",
                "kind": "compute",
                "device": "d0",
                "program": "p",
                "reads": [last, "w"],
                "writes": [made],
            }
        )
        if last != "x":
            free = {"id": f"part{i}/free@d0", "kind": "free", "device": "d0", "reads": [last]}
            steps.append(free)
        last = made
    steps.append({"id": "return@d0", "kind": "return", "device": "d0", "reads": ["y"]})
    data = {
        "name": "slow",
        "dims": {},
        "devices": {"d0": {"kind": "cpu", "needs": 0}},
        "entrypoints": {
            "forward": {
                "inputs": [{"name": "x", "type": matrix, "device": "d0"}],
                "outputs": [{"name": "y", "value": "y"}],
                "steps": [step["id"] for step in steps],
            }
        },
        "programs": {"p": program},
        "values": values,
        "policies": policy(attempts=attempts, timeout_ms=120_000),
        "steps": steps,
    }
    return finish(folder, data, weights)
