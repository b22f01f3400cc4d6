"""Compiling: wall time of the command, and whether its bytes depend on anything."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from genie.bench.cases import Case, case
from genie.bench.report import Row, median_row
from genie.bench.suites import Unavailable
from genie_schemas.reader import read_plan
from genie_schemas.verify import verify
from genie_schemas.writer import dumps


def compiling(quick: bool) -> list[Row]:
    """Rows compile/<model> (wall_s), plan/<model> (write_parse_verify_s) and plan/identical."""
    rounds = 3 if quick else 5
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
        for name in ("resnet18", "bert"):
            try:
                chosen = case(name)
            except Unavailable:
                if name == "bert":
                    continue
                raise
            taken = [_compile(chosen, Path(folder) / f"{name}{i}", i) for i in range(rounds)]
            rows.append(median_row(f"compile/{name}", "wall_s", "s", [t for t, _ in taken]))
            texts = {text for _, text in taken}
            rows.append(
                Row(f"compile/{name}", "different_plans", len(texts), "plans", (len(texts),))
            )
            text = taken[0][1]
            rows.append(
                median_row(
                    f"plan/{name}",
                    "write_parse_verify_s",
                    "s",
                    [_round_trip(text) for _ in range(max(5, rounds))],
                )
            )
            rows.append(Row(f"plan/{name}", "bytes", len(text), "B", (len(text),)))
    return rows


def _compile(chosen: Case, folder: Path, turn: int) -> tuple[float, str]:
    """Seconds and text of one compilation, each under another hash seed and folder."""
    folder.mkdir()
    out = folder / f"{chosen.name}.plan.json"
    argv = [str(Path(sys.executable).parent / "genie"), "compile", str(chosen.model)]
    argv += ["--spec", str(chosen.spec), "-o", str(out)]
    start = time.perf_counter()
    subprocess.run(
        argv,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": str(turn)},
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start, out.read_text(encoding="utf-8")


def _round_trip(text: str) -> float:
    start = time.perf_counter()
    plan = read_plan(text)
    verify(plan)
    dumps(plan)
    return time.perf_counter() - start
