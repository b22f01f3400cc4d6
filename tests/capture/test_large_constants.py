"""A parameter larger than 4 GiB, in a sparse file: compiled, verified and executed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from genie_schemas.reader import load_plan

WIDTH = 1024
ROWS = (1 << 20) + (1 << 15)  # 4 GiB and 128 MiB of float32
NBYTES = ROWS * WIDTH * 4
MARKED = (0, 1 << 19, (1 << 20) - 1, 1 << 20, ROWS - 1)
"""Rows that are not zero: in front of, at and behind the 2 GiB and 4 GiB marks."""
GIB = 1 << 30

MODEL = f"""\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.utils.skip_init(nn.Embedding, {ROWS}, {WIDTH})

    def forward(self, ids):
        return self.table(ids)


def build():
    return Net().eval()
"""

SPEC = f"""\
genie: 1
name: lookup
model: {{weights: table.safetensors}}
inputs:
  ids: {{dtype: int64, shape: [n], low: 0, high: {ROWS}}}
dims:
  n: {{min: 1, max: 16}}
devices: [{{id: d0, kind: cpu, memory: 6GiB}}]
"""


def row(index: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What a marked row holds."""
    return np.arange(WIDTH, dtype=np.float32) + index


def write_sparse(path: Path) -> None:
    """The table as a safetensors file that takes no room but for the marked rows."""
    item = {"dtype": "F32", "shape": [ROWS, WIDTH], "data_offsets": [0, NBYTES]}
    head = json.dumps({"table.weight": item}).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        start = file.tell()
        file.truncate(start + NBYTES)
        for index in MARKED:
            file.seek(start + index * WIDTH * 4)
            file.write(row(index).tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the model; removed at once, not when pytest next cleans up."""
    if psutil.virtual_memory().available < 14 * GIB:
        pytest.skip("needs 14 GiB of free memory")
    if shutil.disk_usage(tmp_path).free < 6 * GIB:
        pytest.skip("needs 6 GiB of free disk")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "spec.yaml").write_text(SPEC)
    write_sparse(tmp_path / "table.safetensors")
    if (tmp_path / "table.safetensors").stat().st_blocks * 512 > GIB:
        pytest.skip("the file system has no sparse files")
    yield tmp_path
    shutil.rmtree(tmp_path)


def genie(folder: Path, *args: str) -> str:
    """Run the CLI there; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "genie.cli", *args],
        cwd=folder,
        env=os.environ | {"XDG_STATE_HOME": str(folder / "state")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_a_parameter_of_more_than_4_gib(folder: Path) -> None:
    said = json.loads(
        genie(folder, "compile", "model.py", "--spec", "spec.yaml", "-o", "x.plan.json", "--json")
    )
    assert said["constants_bytes"] == NBYTES
    plan = load_plan(folder / "x.plan.json")
    (constant,) = plan.constants.values()
    assert constant.bytes == NBYTES
    # The user's own file stands beside the plan: nothing was written twice.
    stored = folder / constant.source.partition("#")[0]
    assert stored.samefile(folder / "table.safetensors")
    genie(folder, "plan", "verify", "x.plan.json")

    ids = np.array([*MARKED, 5, ROWS - 2], np.int64)
    np.save(folder / "ids.npy", ids)
    genie(folder, "execute", "x.plan.json", "--input", "ids=ids.npy", "--output", "out.safetensors")
    found = load_file(folder / "out.safetensors")["output"]
    wanted = np.zeros((len(ids), WIDTH), np.float32)
    wanted[: len(MARKED)] = [row(index) for index in MARKED]
    assert np.array_equal(found, wanted)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 2.5 * NBYTES, "the constant was copied several times"
