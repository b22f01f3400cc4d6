"""Write the lock files (`make locks`) or check that they fit `pyproject.toml` (`make check`).

`locks/runtime.txt` pins what a daemon or a client needs, `locks/dev.txt` what the repository needs.
They are pip constraints, resolved on the oldest supported Python. torch's own GPU packages are left
out: each torch build pins them itself, and naming them here would pull them onto CPU machines.

Usage: locks.py write [--upgrade] | locks.py check
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"runtime": ("runtime",), "dev": ("runtime", "testing", "dev")}
LEFT_OUT = re.compile(r"(nvidia-|cuda-|triton\b)")
HEAD = """\
# Made by `make locks` for Python {python}; constraints, not a list to install.
# inputs: sha256:{digest}
"""


def inputs(extras: tuple[str, ...]) -> list[str]:
    """The requirement strings of the project, its build and `extras`, sorted."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = data["project"]
    found = [*data["build-system"]["requires"], *project["dependencies"]]
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return sorted(set(found))


def floor() -> str:
    """The oldest supported Python, such as "3.11"."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(data["project"]["requires-python"]).removeprefix(">=")


def digest(requirements: list[str]) -> str:
    """sha256 of the requirement strings: a lock made from others is stale."""
    return hashlib.sha256(json.dumps(requirements).encode()).hexdigest()


def torch_pin() -> str:
    """The torch release that every lock holds, as `genie_schemas.versions` names it."""
    sys.path.insert(0, str(ROOT / "schemas"))
    from genie_schemas.versions import TORCH_TESTED

    return f"torch=={TORCH_TESTED}"


def write(name: str, *, upgrade: bool) -> None:
    """Resolve the lock `name` with pip-compile and write it; present pins stay unless `upgrade`."""
    requirements = inputs(LOCKS[name])
    path = ROOT / "locks" / f"{name}.txt"
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "pyproject.in"), Path(folder, "lock.txt")
        pins = Path(folder, "pins.in")
        source.write_text("\n".join(requirements) + "\n")
        # One resolution: the smaller lock is a subset of the larger.
        larger = ROOT / "locks" / "dev.txt"
        pins.write_text(torch_pin() + "\n" + (larger.read_text() if name != "dev" else ""))
        if path.exists() and not upgrade:
            out.write_text(path.read_text())
        command = [
            *(sys.executable, "-m", "piptools", "compile", str(source), "-c", str(pins)),
            *("--quiet", "--strip-extras", "--allow-unsafe", "--no-header", "--no-annotate"),
            *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"),
            *("--no-emit-options", "--no-build-isolation", "-o", str(out)),
            *(["--upgrade"] if upgrade else []),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"locks: pip-compile failed\n{done.stderr}")
        lines = [line for line in out.read_text().splitlines() if "==" in line]
    # A local build tag (2.13.0+cpu) would tie the lock to one machine's wheels.
    kept = [re.sub(r"\+[A-Za-z0-9.]+", "", line) for line in lines if not LEFT_OUT.match(line)]
    head = HEAD.format(python=floor(), digest=digest(requirements))
    path.write_text(head + "\n".join(kept) + "\n")
    print(f"locks/{name}.txt: {len(kept)} packages")


def problems(name: str) -> list[str]:
    """What is wrong with the lock `name`; empty when it fits `pyproject.toml`."""
    path = ROOT / "locks" / f"{name}.txt"
    if not path.exists():
        return [f"locks/{name}.txt is missing"]
    text = path.read_text()
    requirements = inputs(LOCKS[name])
    found: list[str] = []
    if f"sha256:{digest(requirements)}" not in text:
        found.append(f"locks/{name}.txt was made from other requirements than pyproject.toml's")
    pins: dict[str, Version] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            package, _, version = line.partition("==")
            pins[canonicalize_name(package)] = Version(version)
    for requirement in map(Requirement, requirements):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None or pin not in requirement.specifier:
            found.append(f"locks/{name}.txt has {pin} of {requirement}")
    if f"\n{torch_pin()}\n" not in text:
        found.append(f"locks/{name}.txt does not hold {torch_pin()}")
    return found


def main(argv: list[str]) -> int:
    """Run one command; the exit status."""
    if argv == ["check"]:
        found = [problem for name in LOCKS for problem in problems(name)]
        for problem in found:
            print(f"{problem}; run: make locks", file=sys.stderr)
        return 1 if found else 0
    if argv[:1] == ["write"] and set(argv[1:]) <= {"--upgrade"}:
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        if running != floor():
            sys.exit(f"locks: resolve on Python {floor()}, not {running}: its users come first")
        for name in ("dev", "runtime"):
            write(name, upgrade="--upgrade" in argv)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
