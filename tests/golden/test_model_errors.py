"""What a user sees when a model cannot be compiled, kept under golden/errors/model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from syrupy.assertion import SnapshotAssertion

from genie.cli.render import render_error
from genie.driver import compile_model
from genie.testing.snapshots import golden_files
from genie_schemas.errors import GenieError
from tests.golden.support import GOLDEN

SPEC = """\
genie: 1
name: example
inputs:
  image: {dtype: float32, shape: [batch, 8]}
dims:
  batch: {min: 1, max: 4, example: 2}
"""

HEAD = """\
import torch
from torch import nn


"""

MODEL = (
    HEAD
    + """\
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, image):
        hidden = self.body(image)
        return self.head(hidden)


def build():
    return Net().eval()
"""
)


@dataclass(frozen=True)
class Case:
    """A model and a spec that cannot be compiled, and the exit status that says so."""

    status: int
    model: str = MODEL
    spec: str = SPEC
    weights: dict[str, tuple[int, ...]] | None = None


def line(code: str) -> str:
    """The model with another line in its forward."""
    return MODEL.replace("        hidden = self.body(image)\n", code)


WEIGHTED = SPEC + "model: {weights: net.safetensors}\n"
SHAPES: dict[str, tuple[int, ...]] = {
    "body.weight": (8, 8),
    "body.bias": (8,),
    "head.weight": (2, 8),
    "head.bias": (2,),
}

CASES: dict[str, Case] = {
    "no-entry": Case(4, MODEL.replace("def build", "def biuld")),
    "entry-arguments": Case(4, spec=SPEC + "model: {args: {width: 3}}\n"),
    "entry-returns-nothing": Case(4, MODEL.replace("return Net().eval()", "Net().eval()")),
    "entry-raises": Case(
        1, MODEL.replace("return Net().eval()", "raise ValueError('no such width')")
    ),
    "import-raises": Case(1, "import torhc\n" + MODEL),
    "syntax-error": Case(1, MODEL.replace("def build():", "def build()")),
    "forward-raises": Case(1, line("        hidden = self.body(image[:, :3])\n")),
    "data-dependent-if": Case(1, line("        hidden = image if image.sum() > 0 else -image\n")),
    "item": Case(1, line("        hidden = self.body(image) * image.max().item()\n")),
    "numpy": Case(1, line("        hidden = torch.from_numpy(image.numpy()) + 1\n")),
    "dimension-fixed": Case(1, line("        hidden = self.body(image.reshape(2, 8))\n")),
    "data-dependent-size": Case(
        1, line("        hidden = self.body(image[torch.bincount(image[:, 0].long())])\n")
    ),
    "dropout": Case(1, MODEL.replace("nn.Linear(8, 8)", "nn.Dropout(0.5)").replace(".eval()", "")),
    "constant-written": Case(
        1,
        "SEEN = []\n"
        + MODEL.replace("self.head =", "SEEN.append(torch.zeros(8)); self.head =").replace(
            "hidden = self.body(image)", "SEEN[0].add_(image[0]); hidden = image + SEEN[0]"
        ),
    ),
    "custom-operator": Case(
        1,
        line("        hidden = torch.ops.mine.twice(self.body(image))\n").replace(
            "class Net",
            "@torch.library.custom_op('mine::twice', mutates_args=())\n"
            "def twice(x: torch.Tensor) -> torch.Tensor:\n"
            "    return x * 2\n\n\n"
            "twice.register_fake(torch.empty_like)\n\n\n"
            "class Net",
        ),
    ),
    "meta-device": Case(1, MODEL.replace("nn.Linear(8, 8)", "nn.Linear(8, 8, device='meta')")),
    "calibration-without-data": Case(
        1,
        MODEL.replace(
            "self.head =",
            'self.register_buffer("scale", torch.zeros(0, 8).mean(0)); self.head =',
        ).replace("hidden = self.body(image)", "hidden = self.body(image / self.scale)"),
    ),
    "calibration-of-zeros": Case(
        1,
        MODEL.replace(
            "self.head =",
            'self.register_buffer("scale", 127 / torch.zeros(8)); self.head =',
        ).replace("hidden = self.body(image)", "hidden = self.body(image * self.scale)"),
    ),
    "buffers-share-memory": Case(
        1,
        MODEL.replace(
            "self.head =",
            'self.register_buffer("seen", torch.zeros(8))\n'
            '        self.register_buffer("last", self.seen[:1])\n'
            "        self.head =",
        ).replace(
            "hidden = self.body(image)", "self.seen.add_(image[0]); hidden = image + self.last"
        ),
    ),
    "custom-operator-without-shape": Case(
        1,
        line("        hidden = torch.ops.mine.thrice(self.body(image))\n").replace(
            "class Net",
            "@torch.library.custom_op('mine::thrice', mutates_args=())\n"
            "def thrice(x: torch.Tensor) -> torch.Tensor:\n"
            "    return x * 3\n\n\n"
            "class Net",
        ),
    ),
    "data-dependent-while": Case(
        1,
        line(
            "        hidden = image\n"
            "        while hidden.abs().max() > 1:\n"
            "            hidden = hidden / 2\n"
        ),
    ),
    "no-output": Case(1, MODEL.replace("return self.head(hidden)", "self.head(hidden)")),
    "branches-differ": Case(
        1,
        line(
            "        hidden = torch.cond(\n"
            "            image.sum() > 0, lambda x: x + 1, lambda x: x[:, :3], (image,)\n"
            "        )\n"
        ),
    ),
    "branch-writes-outside": Case(
        1,
        line(
            "        hidden = torch.cond(\n"
            "            image.sum() > 0, lambda x: x.add_(1), lambda x: x + 2, (image,)\n"
            "        )\n"
        ),
    ),
    "input-unknown": Case(4, spec=SPEC.replace("image:", "imgae:")),
    "input-missing": Case(4, MODEL.replace("(self, image)", "(self, image, mask)")),
    "weights-missing": Case(4, spec=WEIGHTED),
    "weights-shape": Case(4, spec=WEIGHTED, weights=SHAPES | {"head.weight": (3, 8)}),
    "weights-names": Case(
        4,
        spec=WEIGHTED,
        weights={n.replace("body", "boby"): s for n, s in SHAPES.items()},
    ),
    "module-unknown": Case(
        4,
        spec=SPEC + "placement: {stages: [{device: d0, modules: [bdoy, head]}]}\n"
        "devices: [{id: d0}]\n",
    ),
    "device-too-small": Case(4, spec=SPEC + "devices: [{id: d0, memory: 500B}]\n"),
    "process-dies": Case(1, MODEL.replace("return Net()", "import os; os._exit(9)")),
}


pytestmark = pytest.mark.usefixtures("warm")


def failure(case: Case, model: str = "model.py") -> GenieError:
    Path("model.py").write_text(case.model)
    Path("spec.yaml").write_text(case.spec)
    if case.weights is not None:
        save_file({n: np.zeros(s, np.float32) for n, s in case.weights.items()}, "net.safetensors")
    with pytest.raises(GenieError) as caught:
        compile_model(Path(model), Path("spec.yaml"), Path("out.plan.json"))
    return caught.value


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Errors name files as the user gave them: relative to an empty folder here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(error: GenieError, name: str, snapshot: SnapshotAssertion) -> None:
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "model", "txt"))
    assert render_error(error, colour=False) + "\n" == golden(name=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_error_is_clear(name: str, folder: Path, snapshot: SnapshotAssertion) -> None:
    error = failure(CASES[name])
    check(error, name, snapshot)
    assert error.exit_code == CASES[name].status
    assert error.remedy
    left = {"model.py", "spec.yaml", "net.safetensors", "__pycache__"}
    assert {p.name for p in folder.iterdir()} <= left, "nothing half-made is left behind"


def test_weights_that_are_no_safetensors_file(folder: Path, snapshot: SnapshotAssertion) -> None:
    (folder / "net.safetensors").write_bytes(b"a pickled checkpoint, say")
    error = failure(Case(4, spec=WEIGHTED))
    check(error, "weights-unreadable", snapshot)
    assert error.exit_code == 4


def test_no_model_file(snapshot: SnapshotAssertion) -> None:
    error = failure(CASES["no-entry"], "modle.py")
    check(error, "file-missing", snapshot)
    assert error.exit_code == 4
