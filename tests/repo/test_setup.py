"""`.ci/setup` with an interpreter that writes down what it is asked, instead of installing."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repo.paths import ROOT

# Stands for python3: makes "environments" that hold a copy of itself, and logs pip's arguments.
PYTHON = """\
#!/bin/sh
case "$*" in
  *"sys.version_info <"*) exit {too_old};;
  *"import ensurepip"*) exit {no_venv};;
  *"sys.version_info"*) echo python3.11-venv;;
  *'version("torch")'*) cat "$(dirname "$0")/torch" 2>/dev/null || exit 1;;
  -V) echo "Python 3.{minor}.1";;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/genie";;
  "-m pip "*)
    echo "$*" >>"$PIP_LOG"
    case "$*" in *" torch=="*) echo 2.13.0+cpu >"$(dirname "$0")/torch";; esac;;
esac
"""


@dataclass(frozen=True)
class Checkout:
    """A checkout with nothing in it but what setup reads, and tools on a PATH of its own."""

    folder: Path

    def interpreter(self, *, too_old: int = 0, no_venv: int = 0, minor: int = 11) -> None:
        script = PYTHON.format(too_old=too_old, no_venv=no_venv, minor=minor)
        self.tool("python3", script)

    def tool(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / ".ci/setup")],
            env={
                "PATH": f"{self.folder}/bin",
                "PIP_LOG": str(self.folder / "pip.log"),
                "HOME": str(self.folder),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def pip(self) -> list[str]:
        """What pip was asked to install, one call a line."""
        log = self.folder / "pip.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    for name in ("pyproject.toml", ".ci/setup", "locks/dev.txt", "locks/runtime.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    # The machine's own tools, without its interpreters and package managers.
    for tool in [
        "bash",
        "cat",
        "cp",
        "cut",
        "dirname",
        "env",
        "grep",
        "id",
        "mkdir",
        "rm",
        "sed",
        "sh",
        "sha256sum",
    ]:
        found = shutil.which(tool)
        assert found is not None, tool
        os.symlink(found, tmp_path / "bin" / tool)
    made = Checkout(tmp_path)
    made.interpreter()
    return made


def test_torch_comes_first_alone_and_is_then_held(checkout: Checkout) -> None:
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    first, *rest = checkout.pip
    assert first.endswith(" torch==2.13.0")
    assert not any(" torch" in call for call in rest)
    assert rest[-1].endswith("--no-build-isolation --editable .[runtime,testing,dev]")
    held = (checkout.folder / ".venv/.genie-constraints").read_text().splitlines()
    assert all("--constraint .venv/.genie-constraints" in call for call in checkout.pip)
    assert [line for line in held if line.startswith("torch==")] == ["torch==2.13.0+cpu"]


def test_a_second_time_does_nothing(checkout: Checkout) -> None:
    checkout.setup()
    calls = len(checkout.pip)
    again = checkout.setup(GENIE_VENV="")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(checkout.pip) == calls


def test_a_changed_lock_installs_again_but_not_torch(checkout: Checkout) -> None:
    checkout.setup()
    calls = len(checkout.pip)
    with (checkout.folder / "locks/dev.txt").open("a") as lock:
        lock.write("another==1.0\n")
    assert checkout.setup().returncode == 0
    added = checkout.pip[calls:]
    assert added
    assert not any(" torch" in call for call in added)


def test_another_torch_and_another_place(checkout: Checkout) -> None:
    done = checkout.setup(TORCH="torch==2.12.0 --index-url file:///wheels", GENIE_VENV="env")
    assert done.returncode == 0, done.stderr
    assert checkout.pip[0].endswith(" torch==2.12.0 --index-url file:///wheels")
    assert (checkout.folder / "env/bin/genie").exists()
    assert not (checkout.folder / ".venv").exists()


def test_an_old_python_is_named(checkout: Checkout) -> None:
    checkout.interpreter(too_old=1, minor=9)
    done = checkout.setup()
    assert done.returncode == 1
    assert "Genie needs Python 3.11 or newer; python3 is Python 3.9.1" in done.stderr
    named = checkout.setup(PYTHON="python3")
    assert named.returncode == 1
    assert "python3 is Python 3.9.1; Genie needs 3.11 or newer" in named.stderr


def test_without_the_venv_module_the_command_is_named_not_run(checkout: Checkout) -> None:
    checkout.interpreter(no_venv=1)
    (checkout.folder / "bin/id").unlink()
    checkout.tool("id", "#!/bin/sh\necho 1000\n")
    checkout.tool("apt-get", '#!/bin/sh\necho "$@" >>"$PIP_LOG"\n')
    done = checkout.setup()
    assert done.returncode == 1
    assert "run: sudo apt-get install python3.11-venv" in done.stderr
    assert checkout.pip == []


def test_root_gets_the_venv_module_installed(checkout: Checkout) -> None:
    checkout.interpreter(no_venv=1)
    (checkout.folder / "bin/id").unlink()
    checkout.tool("id", "#!/bin/sh\necho 0\n")
    checkout.tool("apt-get", '#!/bin/sh\necho "$@" >>"$PIP_LOG"\n')
    assert checkout.setup().returncode == 0
    assert checkout.pip[:2] == ["update -qq", "install -y -qq python3.11-venv"]


def test_a_failed_install_is_tried_again(checkout: Checkout) -> None:
    working = (checkout.folder / "bin/python3").read_text()
    broken = working.replace(
        'echo "$*" >>"$PIP_LOG"',
        'case "$*" in *--editable*) echo "ERROR: no" >&2; exit 1;; esac; echo "$*" >>"$PIP_LOG"',
    )
    checkout.tool("python3", broken)
    failed = checkout.setup()
    assert failed.returncode == 1
    assert "ERROR: no" in failed.stderr
    (checkout.folder / ".venv/bin/python").write_text(working)
    assert checkout.setup().returncode == 0
    assert "--editable" in checkout.pip[-1]
