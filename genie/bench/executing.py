"""Executing: the embedded runtime beside the same model run eagerly, in one process."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from genie.bench.cases import case
from genie.bench.measure import alternate, median_ratio
from genie.bench.report import Row, median_row
from genie.client import connect
from genie.driver import compile_model
from genie.model.loader import load_model
from genie.spec import load_spec


def executing(quick: bool) -> list[Row]:
    """Rows eager/resnet18 and embedded/resnet18 (latency_ms, ratio, max_abs difference)."""
    chosen = case("resnet18")
    rounds = 15 if quick else 41
    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
        plan = Path(folder) / "resnet18.plan.json"
        compile_model(chosen.model, chosen.spec, plan)
        loaded = load_spec(chosen.spec, {})
        model = load_model(chosen.model, chosen.model.name, loaded.spec, None)
        ramp = np.arange(3 * 224 * 224, dtype=np.float32)
        image = np.ascontiguousarray(np.sin(ramp).reshape(1, 3, 224, 224))
        with connect() as session:
            session.install(plan)
            torch.set_num_threads(session.links[0].threads)

            def eager() -> np.ndarray:
                with torch.no_grad():
                    result: np.ndarray = model(torch.from_numpy(image)).numpy()
                return result

            def embedded() -> np.ndarray:
                return session.run({"image": image}).outputs["output"]

            difference = float(np.abs(eager() - embedded()).max())
            local, remote = alternate([eager, embedded], rounds, warm_up=3)
            overhead = [session.run({"image": image}).timing.overhead_us for _ in range(rounds)]
    ratio = median_ratio(remote, local)
    row = median_row("embedded/resnet18", "latency_ms", "ms", [s * 1e3 for s in remote])
    return [
        median_row("eager/resnet18", "latency_ms", "ms", [s * 1e3 for s in local]),
        Row(row.case, row.metric, row.value, row.unit, row.samples, "eager/resnet18", ratio),
        Row("embedded/resnet18", "max_abs", difference, "", (difference,)),
        median_row("embedded/resnet18", "overhead_us", "µs", [float(o) for o in overhead]),
    ]
