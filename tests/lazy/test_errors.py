"""What a program sees when the lazy device fails, kept under golden/errors/lazy."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch.nn import functional

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


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("case", "make"),
    [
        ("sparse", "torch.eye(3).to_sparse().to('genie')"),
        ("quantised", "torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8).to('genie')"),
    ],
)
def test_what_is_not_dense(
    case: str, make: str, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    with pytest.raises(GenieError) as caught:
        script(tmp_path, f"import torch\n\nx = {make}\n")
    check(caught.value, f"not-dense-{case}", tmp_path, snapshot)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of what it is about to change
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("sparse", lambda x: x.to_sparse()),
        ("sparse", lambda x: x.to_sparse_csr() @ x),
        (
            "sparse",
            lambda x: torch.sparse_coo_tensor(torch.eye(2).long(), x[0, :2], device="genie"),
        ),
        (
            "sparse",
            lambda x: (
                functional.embedding(x[0].long(), x.requires_grad_(), sparse=True).sum().backward()
            ),
        ),
        ("quantised", lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
        (
            "nested",
            lambda x: torch.nested.nested_tensor([x.cpu(), x.cpu()]).to("genie"),
        ),
    ],
)
def test_other_layouts_are_refused_by_name(
    kind: str, make: Callable[[torch.Tensor], object]
) -> None:
    with pytest.raises(GenieError, match=rf"GEN0261: no plan can hold a {kind} tensor"):
        make(torch.eye(3, device="genie"))


def test_jagged_tensors_are_those_of_a_cpu() -> None:
    rows = [torch.ones(2, 3), torch.ones(4, 3)]
    there = torch.nested.nested_tensor(rows, layout=torch.jagged).to("genie")
    assert torch.equal((there * 2).values().cpu(), torch.full((6, 3), 2.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3, device="genie:1"),
        lambda: torch.empty(3, device="genie:1"),
        lambda: torch.randn(3, device="genie:2"),
        lambda: torch.ones(3).to("genie:1"),
        lambda: torch.ones(3, device="genie").to("genie:1"),
        lambda: torch.nn.Linear(2, 2).to("genie:1"),
    ],
)
def test_there_is_one_device(make: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=r"there is one genie device, genie:0; not genie:[12]"):
        make()


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
