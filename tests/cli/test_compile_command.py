"""`genie compile` on real models: what it writes, prints, compares and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import genie.cli.compile as compiling
from genie.driver import STAGES, Request, Work, run

Run = Callable[..., Any]

MODEL = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(depth)])
        self.head = nn.Linear(4, 2)
    def forward(self, x):
        return self.head(torch.relu(self.layers(x)))

def build(depth=2):
    print("the model says hello")
    model = Net(depth)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.arange(p.numel()).reshape(p.shape) / 8 + i)
    return model.eval()
"""
SPEC = """\
genie: 1
name: tiny
inputs:
  x: {dtype: float32, shape: [batch, 4]}
dims: {batch: {min: 1, max: 8, example: 2}}
model: {args: {depth: "{{ depth | default(2) }}"}}
devices: [{id: a}, {id: b}]
"""


@pytest.fixture
def work(genie: Run) -> Path:
    """The working directory, with a model and a spec."""
    Path("small.yaml").unlink()
    Path("model.py").write_text(MODEL)
    Path("spec.yaml").write_text(SPEC)
    return Path.cwd()


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "__pycache__")


def test_stages_are_the_driver_s() -> None:
    assert tuple(name for name, _ in STAGES) == compiling._STAGES


@pytest.mark.slow
def test_compile_check_and_change(genie: Run, work: Path) -> None:
    """The plan is written, found equal, then found different: what a user's repository does."""
    made = genie("compile", "model.py", "--spec", "spec.yaml")
    assert made.code == 0
    assert made.out.startswith("tiny.plan.json  sha256:")
    assert "\x1b" not in made.out + made.err
    assert "peak memory" in made.out
    # Several devices and no stages: where everything went is worth a line.
    assert "note: everything on a: the spec names no stages" in made.err
    names = files(work)
    (constants,) = [n for n in names if n.endswith(".safetensors")]
    assert names == sorted(["model.py", "spec.yaml", "tiny.plan.json", constants])

    golden = Path("golden.json")
    Path("tiny.plan.json").rename(golden)
    equal = genie("compile", "model.py", "--spec", "spec.yaml", "--check", "golden.json")
    assert (equal.code, equal.out[:7]) == (0, "equal: ")
    assert "tiny.plan.json" not in files(work), "nothing is written with --check alone"

    settings = ("--set", "depth=3", "--check", "golden.json")
    other = genie("compile", "model.py", "--spec", "spec.yaml", *settings)
    assert other.code == 3
    assert "layers.2" in other.out
    assert "golden.json" in other.out
    assert "tiny.plan.json" not in files(work)

    both = ("-o", "new.json", "--json")
    result = genie("compile", "model.py", "--spec", "spec.yaml", *settings, *both)
    body = json.loads(result.out)
    assert (result.code, body["equal"], body["plan"]) == (3, False, "new.json")
    assert any("layers.2" in c["name"] for c in body["changes"])
    assert genie("plan", "diff", "golden.json", "new.json").code == 3
    assert genie("plan", "verify", "golden.json", "new.json").code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_json_has_the_contract_s_fields(genie: Run, work: Path) -> None:
    result = genie("compile", "model.py", "--spec", "spec.yaml", "-o", "out/p.json", "--json")
    body = json.loads(result.out)
    assert set(body) == {
        "plan",
        "plan_digest",
        "workload",
        "steps",
        "programs",
        "devices",
        "constants_bytes",
        "seconds",
    }
    assert body["plan"] == "out/p.json"
    assert body["devices"] == ["a"]
    assert body["constants_bytes"] == 4 * (2 * (16 + 4) + 8 + 2)
    assert isinstance(body["workload"]["confidence"], float)
    assert {"spec", "model", "capture", "schedule", "plan", "verify"} <= set(body["seconds"])
    assert all(isinstance(s, float) and s >= 0 for s in body["seconds"].values())
    plan = json.loads(Path("out/p.json").read_text())
    assert (plan["plan_digest"], len(plan["steps"])) == (body["plan_digest"], body["steps"])


SHOWN = {
    "capture": ("layers.0.linear: f32[batch,4] = aten.linear.default(x, ", "graph"),
    "semantics": ("Linear", "regions"),
    "schedule": ('"kind": "return"', "steps"),
    "plan": ('"format": "genie.execution_plan"', "plan"),
}
"""Stage → what its text has in it, and what its JSON calls its result."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The model after every stage."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "model.py").write_text(MODEL)
    (folder / "spec.yaml").write_text(SPEC)
    return run(Request(folder / "model.py", folder / "spec.yaml", {}, folder))


@pytest.mark.slow
@pytest.mark.parametrize("stage", SHOWN)
def test_what_each_stage_shows(compiled: Work, stage: str) -> None:
    text, key = SHOWN[stage]
    assert text in compiling._stage_text(compiled, stage)
    assert compiling._stage_json(compiled, stage)[key]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "more"), [("semantics", ()), ("schedule", ("--json",))])
@pytest.mark.usefixtures("warm")
def test_stop_after(genie: Run, work: Path, stage: str, more: tuple[str, ...]) -> None:
    result = genie("compile", "model.py", "--spec", "spec.yaml", "--stop-after", stage, *more)
    assert result.code == 0
    text, key = SHOWN[stage]
    if more:
        body = json.loads(result.out)
        assert (body["stage"], list(body["seconds"])[-1]) == (stage, stage)
        assert body[key]
    else:
        assert text in result.out
    assert files(work) == ["model.py", "spec.yaml"]


def test_stop_after_the_spec_needs_no_model(genie: Run, work: Path) -> None:
    result = genie("compile", "model.py", "--spec", "spec.yaml", "--stop-after", "spec")
    assert json.loads(result.out)["name"] == "tiny"
    result = genie("compile", "model.py", "--spec", "spec.yaml", "--stop-after", "spec", "--json")
    assert json.loads(result.out)["spec"]["model"]["args"] == {"depth": 2}


@pytest.mark.parametrize(
    ("golden", "status", "code"),
    [
        ("absent.json", 4, "GEN0300"),
        ("model.py", 4, "GEN0301"),
        ("newer.json", 8, "GEN0305"),
        ("other.json", 4, "GEN0302"),
    ],
)
def test_a_golden_plan_that_cannot_be_read(
    genie: Run, work: Path, golden: str, status: int, code: str
) -> None:
    """It is read before the model is: nobody waits minutes for a typing error."""
    head = '"format_version": "9.0", "min_reader": "9.0"'
    Path("newer.json").write_text('{"format": "genie.execution_plan", ' + head + "}")
    Path("other.json").write_text('{"format": "other"}')
    Path("model.py").write_text("raise SystemExit\n" if golden != "model.py" else MODEL)
    result = genie("compile", "model.py", "--spec", "spec.yaml", "--check", golden)
    assert (result.code, result.out) == (status, "")
    assert code in result.err


@pytest.mark.parametrize("more", [("-o", "x.json"), ("--check", "x.json")])
def test_stop_after_neither_writes_nor_compares(
    genie: Run, work: Path, more: tuple[str, str]
) -> None:
    command = ("compile", "model.py", "--spec", "spec.yaml", "--stop-after", "capture")
    result = genie(*command, *more)
    assert result.code == 2
    assert "--stop-after" in result.err


def test_bad_specs_and_arguments_are_refused_at_once(genie: Run, work: Path) -> None:
    assert genie("compile", "model.py").code == 2
    assert genie("compile", "model.py", "--spec", "absent.yaml").code == 4
    unused = genie("compile", "model.py", "--spec", "spec.yaml", "--set", "dpeth=3")
    assert unused.code != 0
    assert "dpeth" in unused.err
    stage = ("--stop-after", "captur")
    assert genie("compile", "model.py", "--spec", "spec.yaml", *stage).code == 2


# -- interruption --------------------------------------------------------------------------------

SLEEPER = """\
import os, time
from pathlib import Path

def build(depth=2):
    Path("started.part").write_text(str(os.getpid()))
    Path("started.part").rename("started")
    time.sleep(600)
"""


def gone(pid: int, seconds: float) -> bool:
    """Whether a process ends within a time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_compilation_leaves_nothing(
    work: Path, number: signal.Signals, tmp_path: Path
) -> None:
    Path("model.py").write_text(SLEEPER)
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "genie.cli", "compile", "model.py", "--spec", "spec.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not Path("started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        child = int(Path("started").read_text())
        # Ctrl-C reaches every process of the terminal, a supervisor's SIGTERM only the first.
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "GEN0191" in err
    assert "Traceback" not in err
    assert gone(child, 10)
    assert files(work) == ["model.py", "spec.yaml", "started"]
    assert list(scratch.iterdir()) == []
