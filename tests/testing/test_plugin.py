"""The pytest plugin in a fresh repository of a user's, found by its entry point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

MODEL = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(depth)])
    def forward(self, x):
        return self.layers(x)

def build(depth=2):
    model = Net(depth)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    return model.eval()
"""
SPEC = """\
genie: 1
name: tiny
inputs:
  x: {dtype: float32, shape: [batch, 4]}
dims: {batch: {min: 1, max: 8, example: 2}}
model: {args: {depth: "{{ depth | default(2) }}"}}
"""
TEST = """\
def test_plan(genie_plan, plan_snapshot):
    made = genie_plan("model.py", "specs/tiny.yaml")
    assert made is genie_plan("model.py", "specs/tiny.yaml")
    assert made.plan.entrypoints["forward"].inputs[0].name == "x"
    assert made == plan_snapshot
    assert plan_snapshot("again") == made
"""


@pytest.fixture
def repository(pytester: pytest.Pytester) -> pytest.Pytester:
    """What a user has: a model, a spec, a test, and warnings as errors."""
    pytester.makefile(".py", model=MODEL)
    (pytester.mkdir("specs") / "tiny.yaml").write_text(SPEC)
    (pytester.mkdir("tests") / "test_plan.py").write_text(TEST)
    pytester.makeini("[pytest]\nfilterwarnings =\n  error\n  ignore:Module already imported")
    return pytester


def run(repository: pytest.Pytester, *args: str) -> pytest.RunResult:
    """pytest as a process of its own, so that entry points are found as a user's are."""
    return repository.runpytest_subprocess("-p", "no:cacheprovider", *args, timeout=200)


@pytest.mark.slow
def test_a_user_s_repository_from_the_first_run_on(repository: pytest.Pytester) -> None:
    first = run(repository)
    assert first.ret == 1
    first.stdout.fnmatch_lines(["*there is no golden plan *golden/tiny.plan.json*"])
    first.stdout.fnmatch_lines(["*pytest --snapshot-update*"])

    assert run(repository, "--snapshot-update").ret == 0
    golden = repository.path / "golden"
    assert sorted(p.name for p in golden.iterdir()) == ["again.plan.json", "tiny.plan.json"]
    text = (golden / "tiny.plan.json").read_text()
    assert json.loads(text)["name"] == "tiny"
    assert (golden / "again.plan.json").read_text() == text

    (golden / "unrelated.plan.json").write_text("{}")
    (repository.path / "model.py").write_text(MODEL.replace("depth=2", "depth=2, width=4"))
    second = run(repository, "tests")
    assert second.ret == 0, "the model's source may change: its plan is the same"

    (repository.path / "model.py").write_text(MODEL.replace("return self.layers(x)", "return x"))
    (repository.path / "specs" / "tiny.yaml").write_text(SPEC.replace("max: 8", "max: 4"))
    changed = run(repository)
    assert changed.ret == 1
    changed.stdout.fnmatch_lines(
        ["*the plan tiny differs from *golden/tiny.plan.json*", "*~ dimension batch: 1..8 -> 1..4*"]
    )
    changed.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert run(repository, "--snapshot-update").ret == 0
    assert (golden / "unrelated.plan.json").exists(), "golden files of others are never removed"
    assert (golden / "tiny.plan.json").read_text() != text


@pytest.mark.slow
def test_settings_and_another_folder(repository: pytest.Pytester) -> None:
    repository.makeini("[pytest]\ngenie_golden_dir = reviewed/plans")
    (repository.path / "tests" / "test_plan.py").write_text(
        "def test_plan(genie_plan, plan_snapshot):\n"
        "    two = genie_plan('model.py', 'specs/tiny.yaml')\n"
        "    three = genie_plan('model.py', 'specs/tiny.yaml', depth=3)\n"
        "    assert two.digest != three.digest\n"
        "    assert repr(two) == f'<plan tiny {two.digest[:19]}>'\n"
        "    assert two.text.startswith('{') and two != two.text\n"
        "    assert three == plan_snapshot('three')\n"
    )
    assert run(repository, "--snapshot-update").ret == 0
    made = repository.path / "reviewed" / "plans" / "three.plan.json"
    # Only what nobody executes differs: the text is compared, and the reason is said.
    made.write_text(made.read_text().replace('"compiler": "', '"compiler": "0.0.'))
    result = run(repository)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*only in what nobody executes: provenance*"])
    made.write_text("{")
    result = run(repository)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*cannot be read*", "*GEN0301*"])


@pytest.mark.slow
def test_a_model_that_cannot_be_compiled_fails_its_test(repository: pytest.Pytester) -> None:
    (repository.path / "model.py").write_text("def biuld():\n    return None\n")
    result = run(repository)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*GEN0201: * has no callable 'build'*", "*did you mean 'biuld'?*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_pytest_starts_without_anything_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_light="""
        import sys
        def test_light(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("genie")
            heavy = {"torch", "pydantic", "numpy", "grpc", "genie.driver", "genie_schemas"}
            assert heavy & set(sys.modules) == set()
        """
    )
    pytester.makeini("[pytest]\nfilterwarnings = error\n  ignore:Module already imported")
    # Other plugins of this environment (hypothesis) bring numpy in.
    result = run(pytester, "-p", "no:hypothesispytest", "-p", "no:pytest_cov", "-v")
    assert result.ret == 0, result.stdout.str()


def test_fixtures_are_listed_with_their_help(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--fixtures", "-q")
    result.stdout.fnmatch_lines(["genie_plan*", "*compiles, once a session*", "plan_snapshot*"])


def test_golden_folders_are_created_where_the_root_is(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngenie_golden_dir = plans")
    pytester.makepyfile(
        """
        def test_folder(plan_snapshot, pytestconfig):
            assert plan_snapshot._folder == pytestconfig.rootpath / "plans"
            assert (plan_snapshot == "text") is False
            assert repr(plan_snapshot) == "<golden plan >"
        """
    )
    assert run(pytester).ret == 0
    assert not (Path(pytester.path) / "plans").exists()
