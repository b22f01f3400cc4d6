"""The same model and spec give the same bytes: other hash seed, other folder, other order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.support import GOLDEN, SPECS

PAIR = ("dlrm-two", "gpt2-tiny-two", "inplace-before")

# One process compiles all, so that what the first leaves behind could reach the second.
SCRIPT = """
import sys
from pathlib import Path
from genie.driver import compile_model
for item in sys.argv[1:]:
    model, spec, out = item.split(":")
    compile_model(Path(model), Path(spec), Path(out))
"""


def compile_in(folder: Path, seed: str, order: tuple[str, ...], *, relative: bool) -> None:
    items = []
    for name in order:
        spec = SPECS[name]
        if relative:
            shutil.copytree(spec.parent, folder / spec.parent.name, dirs_exist_ok=True)
            spec = Path(spec.parent.name) / spec.name
        items.append(f"{spec.parent / 'model.py'}:{spec}:{name}.plan.json")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *items],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ""},
        check=True,
        timeout=240,
    )


@pytest.mark.slow
def test_plans_are_byte_identical(tmp_path: Path) -> None:
    folders = [tmp_path / "here", tmp_path / "further" / "away"]
    for folder in folders:
        folder.mkdir(parents=True)
    compile_in(folders[0], "0", PAIR, relative=True)
    compile_in(folders[1], "12345", PAIR[::-1], relative=False)
    for name in PAIR:
        golden = (GOLDEN / f"{name}.plan.json").read_bytes()
        made = [(folder / f"{name}.plan.json").read_bytes() for folder in folders]
        assert made == [golden, golden], name
    # The constants are named by their content: equal names are equal bytes.
    files = [sorted(p.name for p in folder.glob("*.safetensors")) for folder in folders]
    assert files[0] == files[1]
    for name in files[0]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
