"""The wheel holds the four packages, their data and both commands."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.repo.paths import PACKAGES, ROOT

DATA = {".py", ".pyi", ".json", ".typed", ".yaml"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    done = subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return zipfile.ZipFile(made)


def _built(module: str) -> bool:
    return importlib.util.find_spec(f"genie_transport.{module}") is not None


def test_wheel_holds_every_source_file_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {
        str(Path(name, path.relative_to(folder)))
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.suffix in DATA or path.name == "py.typed"
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    # The native modules that this machine's compiler and libraries allow, as setup found them too.
    native = {f"genie_transport/{name}" for name in ("_core", "_dpdk", "_ucx") if _built(name)}
    if importlib.util.find_spec("torch") is not None:
        native.add("genie/lazy/_lazy")
    modules = {name for name in packed if name.endswith(".so")}
    assert {name.partition(".")[0] for name in modules} == native
    assert packed - modules == expected
    assert {f"{name}/py.typed" for name in PACKAGES} <= packed


def test_wheel_installs_both_commands_and_its_licence(wheel: zipfile.ZipFile) -> None:
    meta = {Path(n).name: n for n in wheel.namelist() if ".dist-info/" in n}
    entries = wheel.read(meta["entry_points.txt"]).decode()
    assert "genie = genie.cli.main:main" in entries
    assert "genied = genie_runtime.main:main" in entries
    assert "Apache License" in wheel.read(meta["LICENSE"]).decode()
    metadata = wheel.read(meta["METADATA"]).decode()
    assert "Requires-Python: >=3.11" in metadata
    assert "Provides-Extra: testing" in metadata
