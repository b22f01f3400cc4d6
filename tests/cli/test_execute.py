"""`genie execute`, `status`, `cancel` and `auth` as users meet them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from genie.client.files import load_inputs
from tests.cli.conftest import Result
from tests.daemons import Daemons, daemons, until
from tests.plans_by_hand import HandMade, slow, two_layers
from tests.runtime.test_faults import held

__all__ = ["daemons"]

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)
Genie = Callable[..., Result]

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)
    def forward(self, x):
        return torch.relu(self.a(x)) * FACTOR

def build():
    torch.manual_seed(0)
    return Net().eval()
"""


@pytest.fixture
def made(genie: Genie) -> HandMade:
    """A plan, and x.npy, in the working directory."""
    np.save("x.npy", X)
    return two_layers(Path())


def call(genie: Genie, *argv: str) -> tuple[Result, dict[str, Any]]:
    result = genie("execute", *argv, "--json")
    return result, json.loads(result.out)


def test_json_carries_the_contracts_fields(genie: Genie, made: HandMade) -> None:
    result, found = call(genie, str(made.path), "--input", "x=x.npy", "--output", "o.safetensors")
    assert result.code == 0
    assert {
        *("run_id", "plan_digest", "entrypoint", "outputs", "timing", "bytes", "transports"),
        *("attempts", "replayed"),
    } <= set(found)
    assert found["outputs"]["y"]["shape"] == [3, 4]
    assert found["outputs"]["label"] == {"literal": 7}
    assert set(found["timing"]) == {"total_ms", "compute_ms", "transfer_ms", "overhead_us"}
    written = load_inputs(Path("o.safetensors"))
    assert {n: t.sha256() for n, t in written.items()} == {
        n: found["outputs"][n]["sha256"] for n in ("y", "hidden")
    }


def test_a_summary_for_people(genie: Genie, made: HandMade, snapshot: SnapshotAssertion) -> None:
    argv = [str(made.path), "--input", "x=x.npy", "--run-id", "run-1", "--output", "o.safetensors"]
    first, again = genie("execute", *argv), genie("execute", *argv)
    assert (first.code, again.code, first.err) == (0, 0, "")
    text = re.sub(r"\d+\.\d ms", "TIME", first.out + again.out)
    assert re.sub(r"sha256 [0-9a-f]{16}", "sha256 DIGEST", text) == snapshot


def test_inputs_come_from_one_file_or_several(genie: Genie, made: HandMade) -> None:
    np.savez("x.npz", x=X)
    by_name = call(genie, str(made.path), "--input", "x=x.npy")[1]
    together = call(genie, str(made.path), "--inputs", "x.npz")[1]
    assert by_name["outputs"] == together["outputs"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "'x' (f32[batch,16]) is missing"),
        (["--input", "x=none.npy"], 2, "none.npy"),
        (["--input", "x"], 2, "NAME=FILE"),
        (["--input", "x=x.npy", "--input", "x=x.npy"], 2, "given twice"),
        (["--input", "xx=x.npy"], 2, "did you mean 'x'"),
        (["--input", "x=x.npy", "--entrypoint", "foward"], 2, "forward"),
        (["--input", "x=x.npy", "--run-id", "a b"], 2, "run id"),
        (["--input", "x=x.npy", "--compare", "m.py"], 2, "--spec"),
        (["--input", "x=x.npy", "--on", "nonsense"], 2, "endpoint"),
        (["--input", "x=x.npy", "--on", "d0=h:1", "--on", "h:2"], 2, "--on"),
        (["--input", "x=x.npy", "--on", "unix:///nobody.sock"], 5, "nobody answers"),
        (["--input", "x=x.npy", "--output", "none/o.safetensors"], 1, "cannot be written"),
        (["--input", "x=x.npy", "--deadline", "0"], 2, "deadline"),
    ],
)
def test_what_cannot_be_run_says_why(
    genie: Genie, made: HandMade, argv: list[str], code: int, words: str
) -> None:
    result = genie("execute", str(made.path), *argv)
    assert result.code == code, result.err
    assert words in result.err
    assert "Traceback" not in result.err
    assert result.out == "" or code == 1


def test_a_plan_without_its_weights(genie: Genie, made: HandMade) -> None:
    for file in Path().glob("*.safetensors"):
        file.unlink()
    result = genie("execute", str(made.path), "--input", "x=x.npy")
    assert result.code == 4
    assert "GEN0315" in result.err


@pytest.mark.usefixtures("warm")
def test_compare_tells_equal_from_different(genie: Genie) -> None:
    Path("same.py").write_text(MODEL.replace("FACTOR", "1.0"))
    Path("other.py").write_text(MODEL.replace("FACTOR", "1.001"))
    np.save("v.npy", X[:, :3].copy())
    assert genie("compile", "same.py", "--spec", "small.yaml", "-o", "p.plan.json").code == 0
    argv = ["p.plan.json", "--input", "x=v.npy", "--spec", "small.yaml", "--compare"]
    result, found = call(genie, *argv, "same.py")
    assert result.code == 0
    assert found["compare"] == {"max_abs": 0.0, "max_rel": 0.0, "ok": True}
    result, found = call(genie, *argv, "other.py")
    assert result.code == 3
    assert not found["compare"]["ok"]
    assert 0 < found["compare"]["max_abs"] < 0.01
    assert "GEN0423" in result.err
    assert "equal to eager" in genie("execute", *argv, "same.py").out


def test_ctrl_c_stops_the_run_on_the_daemon(genie: Genie, daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=2000)
    np.save(tmp_path / "m.npy", np.eye(512, dtype=np.float32))
    daemon = daemons.start()
    for on in ([], ["--on", daemon.endpoint]):
        client = subprocess.Popen(
            [
                *(sys.executable, "-m", "genie.cli", "execute", str(made.path), *on),
                *("--input", f"x={tmp_path / 'm.npy'}", "--run-id", "interrupted"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        if on:
            until(lambda: held(daemon)[1] > 0, 30.0)
        else:
            ledger = Path(os.environ["XDG_STATE_HOME"]) / "genie/embedded/ledger.sqlite"
            until(ledger.exists, 30.0)
            until(partial(_has_torch, client.pid), 30.0)
        client.send_signal(signal.SIGINT)
        _, err = client.communicate(timeout=60)
        assert client.returncode == 130, err
        assert "Traceback" not in err
    until(lambda: held(daemon) == (0, 0))


def _has_torch(pid: int) -> bool:
    return "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text()


def test_status_and_cancel(genie: Genie, daemons: Daemons, made: HandMade) -> None:
    daemon = daemons.start()
    on = ["--on", daemon.endpoint]
    assert genie("execute", str(made.path), "--input", "x=x.npy", *on).code == 0
    found = json.loads(genie("status", *on, "--json").out)
    assert {"runs", "plans", "sessions", "devices", "boot_id"} <= set(found)
    assert (found["runs"], found["plans"], found["sessions"]) == (1, 1, 0)
    shown = genie("status", *on)
    assert "1 runs, 1 plans, 0 sessions" in shown.out
    result = genie("cancel", "run-1", *on)
    assert (result.code, "GEN0416" in result.err) == (1, True)
    assert genie("cancel", "a b", *on).code == 2
    daemon.stop()
    assert genie("status", *on).code == 5
    assert genie("status").code == 5


def test_auth_init_makes_credentials_once(genie: Genie, tmp_path: Path) -> None:
    result = genie("auth", "init", "--host", "gpu1.example.org", "--json")
    assert result.code == 0
    folder = Path(json.loads(result.out)["dir"])
    assert folder == tmp_path / "config" / "genie"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    again = genie("auth", "init")
    assert again.code == 1
    assert "GEN0524" in again.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert genie("auth", "init", "--dir", "elsewhere", "--host", "no/name").code in (0, 2)


def test_the_daemon_command_is_genied(genie: Genie) -> None:
    assert "--listen" in genie("daemon", "--help").out
    result = genie("daemon", "--listen", "0.0.0.0:0")
    assert result.code == 6
    assert "GEN0520" in result.err
