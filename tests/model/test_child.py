"""The process that runs the user's model: however it ends, the compiler says so and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from genie.driver import compile_model
from genie_schemas.errors import GenieError

SPEC = "genie: 1\nname: net\ninputs:\n  x: {dtype: float32, shape: [b, 6]}\ndims:\n  b: {max: 8}\n"

MODEL = """\
import atexit, os, signal, sys, threading, time
import torch
from torch import nn

class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x)

def build():
    BUILD
    return M().eval()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(SPEC)
    return tmp_path


def compiled(folder: Path, build: str = "pass", spec: str = SPEC) -> Path:
    """Compile with these statements in the entry; the plan's path."""
    (folder / "model.py").write_text(MODEL.replace("BUILD", build))
    (folder / "net.yaml").write_text(spec)
    work, written = compile_model(Path("model.py"), Path("net.yaml"), folder / "net.plan.json")
    assert work.plan is not None
    assert written is not None
    return written.plan


def refused(folder: Path, build: str = "pass", spec: str = SPEC) -> GenieError:
    with pytest.raises(GenieError) as caught:
        compiled(folder, build, spec)
    assert not list(folder.glob(".genie-*"))
    assert not (folder / "net.plan.json").exists()
    return caught.value


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        ("os._exit(0)", "exit status 0"),
        ("os._exit(7)", "exit status 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9 (killed; perhaps out of memory)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
    ],
)
def test_a_process_that_dies(folder: Path, statement: str, how: str) -> None:
    error = refused(folder, statement)
    assert error.code == "GEN0228"
    assert error.cause == how
    assert error.remedy


def test_what_the_model_prints_is_no_output_of_the_compiler(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compiled(folder, "print('printed'); sys.stdout.flush(); os.write(1, b'written')")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "printed" in shown.err
    assert "written" in shown.err


def test_the_model_reads_nothing_from_standard_input(folder: Path) -> None:
    compiled(folder, "assert sys.stdin.read() == '' and os.read(0, 10) == b''")
    (folder / "net.plan.json").unlink()
    error = refused(folder, "input('name? ')")
    assert error.code == "GEN0202"
    assert "EOFError" in error.message


@pytest.mark.usefixtures("warm")
def test_files_beside_the_model_can_be_imported(folder: Path) -> None:
    (folder / "sizes.py").write_text("WIDTH = 3\n")
    compiled(folder, "import sizes; assert sizes.WIDTH == 3")
    (folder / "net.plan.json").unlink()
    (folder / "sizes.py").write_text("def width():\n    raise ValueError('no width')\n")
    error = refused(folder, "import sizes; sizes.width()")
    assert error.code == "GEN0202"
    assert error.place is not None
    assert (error.place.file, error.place.line) == ("sizes.py", 2)
    assert "sizes.py:2 in width" in str(error.cause)
    assert "no width" in error.message


def test_what_the_model_leaves_behind_does_not_hold_the_compiler_up(folder: Path) -> None:
    # A thread, an exit handler, and a process that holds every inherited descriptor open.
    compiled(
        folder,
        "threading.Thread(target=time.sleep, args=(60,)).start();"
        " atexit.register(os._exit, 9);"
        " os.fork() or (time.sleep(3), os._exit(0))",
    )


@pytest.mark.usefixtures("warm")
def test_the_entrys_surroundings_do_not_matter(folder: Path) -> None:
    first = compiled(folder, "torch.manual_seed(0)").read_text()
    statements = "torch.manual_seed(0); os.chdir('/'); torch.set_grad_enabled(False)"
    assert compiled(folder, statements).read_text() == first


@pytest.mark.usefixtures("warm")
def test_weights_are_loaded_and_linked(folder: Path) -> None:
    state = {"layer.weight": torch.arange(18.0).reshape(3, 6), "layer.bias": torch.ones(3)}
    save_file(state, folder / "w.safetensors")
    spec = SPEC + "model: {weights: w.safetensors}\n"
    plan = json.loads(compiled(folder, spec=spec).read_text())
    source = plan["constants"]["layer.weight"]["source"]
    linked = folder / source.partition("#")[0]
    assert linked.samefile(folder / "w.safetensors")


def test_constants_that_cannot_be_written(folder: Path) -> None:
    from genie.capture import store

    with pytest.raises(GenieError) as caught:
        store.save({"a": torch.ones(3)}, folder / "missing" / "constants.safetensors")
    assert caught.value.code == "GEN0330"
