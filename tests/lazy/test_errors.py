"""What a program sees when the lazy device fails, kept under golden/errors/lazy."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
from syrupy.assertion import SnapshotAssertion

import genie.lazy
from genie.cli.render import render_error
from genie.testing.snapshots import golden_files
from genie_schemas.errors import GenieError
from tests.golden.support import GOLDEN


def script(folder: Path, source: str) -> ModuleType:
    """A program of the user's, `train.py`, run by importing it."""
    path = folder / "train.py"
    path.write_text(dedent(source))
    spec = importlib.util.spec_from_file_location("genie_lazy_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(error: GenieError, name: str, folder: Path, snapshot: SnapshotAssertion) -> None:
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "lazy", "txt"))
    text = render_error(error, colour=False).replace(f"{folder}/", "")
    assert text + "\n" == golden(name=name)


def test_an_operator_that_failed_names_the_line_that_waited(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    program = """\
        import torch

        values = torch.arange(3000.0).to("genie")
        chosen = values[torch.tensor([5000]).to("genie")]
        total = chosen.sum()
        print(total.item())
        """
    with pytest.raises(GenieError) as caught:
        script(tmp_path, program)
    assert caught.value.code == "GEN0460"
    assert caught.value.context["user_line"].endswith("train.py:6")
    check(caught.value, "operator-failed", tmp_path, snapshot)


def test_a_lost_tensor(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    program = """\
        import torch

        values = torch.arange(3000.0).to("genie")
        chosen = values[torch.tensor([5000]).to("genie")]
        try:
            chosen.sum().item()
        except Exception:
            pass
        """
    module = script(tmp_path, program)
    # torch hands on what the recorder says as a RuntimeError of its own.
    with pytest.raises(RuntimeError, match="GEN0260") as caught:
        (module.chosen + 1).sum().item()
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "lazy", "txt"))
    assert str(caught.value) + "\n" == golden(name="tensor-lost")


def test_what_no_plan_can_hold(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    program = """\
        import torch

        x = torch.zeros(64, dtype=torch.complex32, device="genie")
        y = x.clone()
        print(y.cpu())
        """
    with pytest.raises(GenieError) as caught:
        script(tmp_path, program)
    assert caught.value.code == "GEN0261"
    check(caught.value, "no-plan-can-hold", tmp_path, snapshot)


def test_the_device_is_connected_once(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    genie.lazy.threads()
    program = """\
        import genie.lazy

        genie.lazy.connect("gpu1.example.org:7000")
        """
    with pytest.raises(GenieError) as caught:
        script(tmp_path, program)
    assert caught.value.code == "GEN0263"
    check(caught.value, "connected-already", tmp_path, snapshot)


def test_the_extension_is_missing(snapshot: SnapshotAssertion) -> None:
    code = (
        "import sys\n"
        "sys.modules['genie.lazy._lazy'] = None\n"
        "from genie.cli.render import render_error\n"
        "from genie_schemas.errors import GenieError\n"
        "try:\n"
        "    import genie.lazy\n"
        "except GenieError as error:\n"
        "    print(render_error(error, colour=False))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "GENIE_LAZY_RECORDER": "native"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "lazy", "txt"))
    assert done.stdout == golden(name="extension-missing"), done.stderr[-2000:]
