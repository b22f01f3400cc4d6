"""The checks of `make check` really refuse what they are there to refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.repo.paths import PACKAGES, ROOT

BIN = Path(sys.executable).parent


def lint(code: str, name: str) -> str:
    """What ruff says of `code` as the file `name` of this project."""
    done = subprocess.run(
        [BIN / "ruff", "check", "-q", "--output-format=concise", "--stdin-filename", name, "-"],
        input=f'"""Module."""\n\n{code}\n',
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import pickle\n\npickle.loads(b'')", "TID251"),
        ("from pickle import loads\n\nloads(b'')", "TID251"),
        ("import marshal\n\nmarshal.loads(b'')", "TID251"),
        ("import torch\n\ntorch.load('x')", "TID251"),
        ("import torch\n\ntorch.export.load('x')", "TID251"),
        ("import yaml\n\nyaml.unsafe_load('x')", "TID251"),
        ("import os\n\nos.system('ls')", "TID251"),
        ("import runtime.genie_runtime\n\nruntime", "TID251"),
        ("eval('1')", "S307"),
        ("exec('1')", "S102"),
        ("import subprocess\n\nsubprocess.run('ls', shell=True)", "S602"),
        ("print('progress')", "T201"),
    ],
)
@pytest.mark.parametrize("name", ["genie/x.py", "runtime/genie_runtime/x.py"])
def test_forbidden_calls(code: str, rule: str, name: str) -> None:
    assert f" {rule} " in lint(code, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").is_file()


# -- the import law ----------------------------------------------------------------------------

TREE = {
    "genie/cli/main.py": "from genie import driver\n",
    "genie/driver.py": "from genie.capture import export\nfrom genie.plan import emit\n",
    "genie/__init__.py": "from genie.client import default\n",
    "genie/client/default.py": "import json\n",
    "genie/client/session.py": "from genie_transport import transport\n",
    "genie/bench/run.py": "import torch\n",
    "genie/model/load.py": "import torch\n",
    "genie/capture/export.py": "import torch\nfrom genie.graph import ir\n",
    "genie/plan/emit.py": "from genie.schedule import place\nfrom genie_schemas import plan\n",
    "genie/lazy/x.py": "import torch\n",
    "genie/schedule/place.py": "from genie.graph import ir\n",
    "genie/graph/ir.py": "from genie.spec import load\n",
    "genie/spec/load.py": "from genie_schemas import plan\n",
    "schemas/genie_schemas/plan.py": "import json\n",
    "native/genie_transport/transport.py": "from genie_schemas import plan\n",
    "runtime/genie_runtime/executors/cpu.py": "import torch\nimport genie_transport\n",
    "runtime/genie_runtime/main.py": "from genie_schemas import plan\n",
}


# An editable install maps the packages' names to this checkout; the tree's own must be found.
LINT_IMPORTS = """
import sys
from importlinter.cli import lint_imports_command
sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.path[:0] = [".", "schemas", "runtime", "native"]
lint_imports_command()
"""


def import_law(folder: Path, broken: dict[str, str]) -> tuple[int, str]:
    """Run the project's contracts on a tree with the project's layout, `broken` laid over it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert config["tool"]["importlinter"]["contracts"]
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, code in {**TREE, **broken}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    for container in ("genie", "schemas/genie_schemas", "native/genie_transport"):
        (folder / container / "__init__.py").touch()
    for module in [*folder.glob("genie/*/"), *folder.glob("runtime/genie_runtime/**/")]:
        (module / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-P", "-c", LINT_IMPORTS, "--no-cache"],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_law_allows_the_architecture(tmp_path: Path) -> None:
    code, said = import_law(tmp_path, {})
    assert code == 0, said


@pytest.mark.parametrize(
    ("name", "code", "broken"),
    [
        ("schemas/genie_schemas/x.py", "import genie_transport\n", "packages"),
        ("native/genie_transport/x.py", "import genie_runtime\n", "packages"),
        ("runtime/genie_runtime/x.py", "from genie import driver\n", "packages"),
        ("genie/driver.py", "from genie.cli import main\n", "inside genie"),
        ("genie/spec/x.py", "from genie.graph import ir\n", "inside genie"),
        ("genie/capture/x.py", "from genie.plan import emit\n", "inside genie"),
        ("genie/schedule/x.py", "def f():\n    from genie.model import load\n", "inside genie"),
        ("genie/strange.py", "", "inside genie"),
        ("genie/plan/x.py", "import torch\n", "torch only"),
        ("runtime/genie_runtime/x.py", "def f():\n    from torch import nn\n", "torch only"),
        ("genie/cli/x.py", "from torch.nn import functional\n", "torch only"),
    ],
)
def test_the_law_is_held(tmp_path: Path, name: str, code: str, broken: str) -> None:
    status, said = import_law(tmp_path, {name: code})
    assert status == 1, said
    assert any(line.startswith(broken) and "BROKEN" in line for line in said.splitlines()), said


def test_types_alone_may_be_imported(tmp_path: Path) -> None:
    code = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import torch\n"
    assert import_law(tmp_path, {"genie/plan/x.py": code})[0] == 0
