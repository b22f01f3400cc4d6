"""The examples on the pages work: they parse, validate, and the tour of the README runs."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from genie.semantics.plugins import GROUP
from genie.spec import load_spec
from genie_schemas.args import decode
from genie_schemas.plan import ComputeStep, FreeStep, LoadStep, Op, ReturnStep, TransferStep
from tests.docs.pages import Block, blocks, leaves, options, read, section

STEPS: dict[str, type[BaseModel]] = {
    "compute": ComputeStep,
    "free": FreeStep,
    "load": LoadStep,
    "return": ReturnStep,
    "transfer": TransferStep,
}


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json(block: Block) -> None:
    lines = block.text.splitlines()
    if not all(line.startswith("{") for line in lines) or len(lines) < 2:
        json.loads(block.text)
        return
    for line in lines:  # lines of a plan: one step or one operator each
        data = json.loads(line)
        if "op" in data:
            for argument in Op.model_validate(data).args:
                decode(argument)
        else:
            STEPS[data["kind"]].model_validate(data)


@pytest.mark.parametrize("block", blocks("yaml", "toml"), ids=str)
def test_specs(block: Block, tmp_path: Path) -> None:
    text = block.text
    if block.language == "toml" and "project" in tomllib.loads(text):  # a package's own
        assert list(tomllib.loads(text)["project"]["entry-points"]) == [GROUP]
        return
    if block.language == "toml" and "genie" not in tomllib.loads(text):
        configuration(text)
        return
    if text.startswith("devices:"):  # what the README adds to its first spec
        first = next(b for b in blocks("yaml") if b.page == block.page)
        text = first.text + text
    path = tmp_path / f"spec.{block.language}"
    path.write_text(text, encoding="utf-8")
    settings = {"width": "32", "scale": "2"} if "{{" in text else {}
    load_spec(path, settings)


def configuration(text: str) -> None:
    """Every table is a command, every key one of its long options."""
    for table, values in tomllib.loads(text).items():
        assert {f"--{key}" for key in values} <= set(options(leaves()[table]))


def test_both_languages_of_the_spec_say_the_same(tmp_path: Path) -> None:
    written = [b for b in blocks("yaml", "toml") if b.page == "docs/spec.md"][:2]
    found = []
    for block in written:
        path = tmp_path / f"spec.{block.language}"
        path.write_text(block.text, encoding="utf-8")
        found.append(load_spec(path, {}).spec)
    yaml, toml = found
    assert [d.id for d in yaml.devices] == [d.id for d in toml.devices]
    assert (yaml.inputs, yaml.dims, yaml.placement) == (toml.inputs, toml.dims, toml.placement)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_parses_and_imports_what_exists(block: Block) -> None:
    text = block.text
    try:
        tree = ast.parse(text)
    except SyntaxError:
        tree = ast.parse("def forward(self, x):\n" + re.sub("^", "    ", text, flags=re.M))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genie"):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_five_lines_of_transfer() -> None:
    text = section("docs/transports.md", "## In five lines")
    code = text[text.index("```python\n") + 10 : text.rindex("```")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- the README's tour -------------------------------------------------------------------------


def tour() -> tuple[dict[str, str], list[str]]:
    """The files of the tour, and its commands up to the daemons."""
    text = section("README.md", "## A tour with a model of your own")
    text = text[: text.index("### Two daemons")]
    found = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.S))
    commands = re.findall(r"^\$ (.+)$", text, re.M)
    assert [c.split()[0] for c in commands].count("genie") == 5
    return {"model.py": found["python"], "vision.yaml": found["yaml"]}, commands


@pytest.mark.slow
def test_the_tour_runs(tmp_path: Path) -> None:
    files, commands = tour()
    for file, text in files.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    said = []
    for command in commands:
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        said.append(done.stdout)
    shown = read("README.md")
    # What does not depend on the machine is in the README word for word.
    assert "steps        15 on d0" in said[0]
    assert "equal to eager execution (max_abs 0, max_rel 0)" in said[3]
    assert said[-1].splitlines()[0] == "tour-1: on record, not run again"
    plan_lines = [line for line in said[1].splitlines() if "sha256:" not in line]
    assert [line for line in plan_lines if line not in shown and ".safetensors" not in line] == []
