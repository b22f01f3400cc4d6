"""The installed commands as a user runs them: real processes, a model of the user's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.daemons import daemons, home

__all__ = ["daemons", "home"]

MODEL = """\
import torch
from torch import nn


class Layers(nn.Module):
    def __init__(self, rounds):
        super().__init__()
        self.layer = nn.Linear(2048, 2048)
        self.rounds = rounds

    def forward(self, x):
        for _ in range(self.rounds):
            x = torch.tanh(self.layer(x))
        return x


def build(rounds=300):
    torch.manual_seed(0)
    return Layers(rounds).eval()
"""
SPEC = """\
genie: 1
name: layers
model: {entry: build}
inputs:
  x: {dtype: float32, shape: [batch, 2048]}
dims: {batch: {min: 1, max: 4096, example: 2}}
policies: {default: {timeout: 600s}}
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


def genie(*argv: object, timeout: float = 120) -> Result:
    """Run `genie ARGS…` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "genie.cli", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


class Started:
    """A `genie` that runs, in a process group of its own as under a terminal."""

    def __init__(self, *argv: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "genie.cli", *map(str, argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, timeout: float = 60) -> Result:
        try:
            out, err = self.process.communicate(timeout=timeout)
        finally:
            self.process.kill()
        return Result(self.process.returncode, out, err)


@dataclass(frozen=True)
class Compiled:
    """The plan of `MODEL`; with `long`, its run takes minutes, in operators of a second or less."""

    folder: Path
    plan: Path
    short: Path
    long: Path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp("layers")
    (folder / "model.py").write_text(MODEL)
    (folder / "layers.yaml").write_text(SPEC)
    plan = folder / "layers.plan.json"
    done = genie("compile", folder / "model.py", "--spec", folder / "layers.yaml", "-o", plan)
    assert done.code == 0, done.err
    for name, rows in (("short", 1), ("long", 4096)):
        np.save(folder / f"{name}.npy", np.ones((rows, 2048), np.float32))
    return Compiled(folder, plan, folder / "short.npy", folder / "long.npy")


@pytest.fixture(autouse=True)
def _private(home: Path) -> None:
    """Every test here has a home of its own."""
