"""The lock files fit pyproject.toml, and `make check` notices when they do not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.paths import ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout of what the check reads."""
    for name in ("pyproject.toml", ".ci/locks.py", "locks/dev.txt", "locks/runtime.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    package = tmp_path / "schemas/genie_schemas"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "schemas/genie_schemas/versions.py", package)
    return tmp_path


def check(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-P", str(folder / ".ci/locks.py"), "check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)


def test_the_locks_fit(copy: Path) -> None:
    assert check(copy) == (0, "")


def test_another_requirement_makes_them_stale(copy: Path) -> None:
    edit(copy / "pyproject.toml", r'"click>=[\d.]+"', '"click>=99"')
    code, said = check(copy)
    assert code == 1
    assert "locks/dev.txt was made from other requirements" in said
    assert re.search(r"locks/runtime.txt has 8\.[\d.]+ of click>=99; run: make locks", said)


def test_another_torch_is_refused(copy: Path) -> None:
    edit(copy / "locks/dev.txt", r"^torch==.*$", "torch==2.12.0")
    code, said = check(copy)
    assert (code, said.count("\n")) == (1, 1)
    assert "locks/dev.txt does not hold torch==" in said


def test_a_lock_that_is_not_there(copy: Path) -> None:
    (copy / "locks/runtime.txt").unlink()
    assert check(copy) == (1, "locks/runtime.txt is missing; run: make locks\n")


@pytest.mark.parametrize("name", ["dev", "runtime"])
def test_locks_name_packages_and_nothing_else(name: str) -> None:
    """No index, path, local build or GPU package: they hold on every machine."""
    for line in (ROOT / f"locks/{name}.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
        assert not line.startswith(("nvidia-", "triton", "cuda-"))
