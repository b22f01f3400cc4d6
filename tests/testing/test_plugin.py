"""The pytest plugin in a fresh repository of a user's, found by its entry point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

GOLDEN = Path(__file__).parents[2] / "golden"

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
dims: {batch: {min: 1, max: "{{ most | default(8) }}", example: 2}}
model: {args: {depth: "{{ depth | default(2) }}"}}
"""
TEST = """\
def test_plan(genie_plan, plan_snapshot):
    made = genie_plan("model.py", "specs/tiny.yaml")
    assert made is genie_plan("model.py", "specs/tiny.yaml")
    assert made.plan.entrypoints["forward"].inputs[0].name == "x"
    assert repr(made) == f"<plan tiny {made.digest[:19]}>"
    assert made.text.startswith("{") and made != made.text
    assert made == plan_snapshot
    assert plan_snapshot("again") == made
"""
DEEPER = """\
def test_settings(genie_plan, plan_snapshot):
    made = genie_plan("model.py", "specs/tiny.yaml", depth=3, most=8)
    assert made.digest != genie_plan("model.py", "specs/tiny.yaml").digest
    assert made == plan_snapshot("three")
"""
BROKEN = """\
def test_broken(genie_plan):
    genie_plan("broken.py", "specs/tiny.yaml")
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
    tests = repository.path / "tests"
    (repository.path / "broken.py").write_text("def biuld():\n    return None\n")
    (tests / "test_broken.py").write_text(BROKEN)
    first = run(repository)
    first.assert_outcomes(failed=2)
    first.stdout.fnmatch_lines(["*GEN0201: * has no callable 'build'*", "*did you mean 'biuld'?*"])
    first.stdout.fnmatch_lines(["*there is no golden plan *golden/tiny.plan.json*"])
    first.stdout.fnmatch_lines(["*pytest --snapshot-update*"])
    first.stdout.no_fnmatch_line("*Traceback*")
    (tests / "test_broken.py").unlink()

    (tests / "test_deeper.py").write_text(DEEPER)
    assert run(repository, "--snapshot-update").ret == 0
    golden = repository.path / "golden"
    names = ["again.plan.json", "three.plan.json", "tiny.plan.json"]
    assert sorted(p.name for p in golden.iterdir()) == names
    text = (golden / "tiny.plan.json").read_text()
    assert json.loads(text)["name"] == "tiny"
    assert (golden / "again.plan.json").read_text() == text

    # The model's source may change, its plan is the same; a setting changes the other plan.
    (repository.path / "model.py").write_text(MODEL.replace("depth=2", "depth=2, width=4"))
    (tests / "test_deeper.py").write_text(DEEPER.replace("most=8", "most=4"))
    second = run(repository, "tests")
    second.assert_outcomes(passed=1, failed=1)
    second.stdout.fnmatch_lines(
        [
            "*the plan tiny differs from *golden/three.plan.json*",
            "*~ dimension batch: 1..8 -> 1..4*",
        ]
    )
    second.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_golden_files_of_another_folder(pytester: pytest.Pytester) -> None:
    """Absent, unreadable, different, and different only in what nobody executes."""
    pytester.makeini(
        "[pytest]\ngenie_golden_dir = reviewed/plans\nfilterwarnings =\n  error\n"
        "  ignore:Module already imported"
    )
    plan = GOLDEN / "digits.plan.json"
    pytester.makepyfile(
        test_plan=f"""
        from pathlib import Path
        import pytest
        from genie.testing.plugin import CompiledPlan
        from genie_schemas.reader import load_plan
        @pytest.mark.parametrize("name", ["absent", "broken", "other", "aside"])
        def test_plan(name, plan_snapshot):
            path = Path({str(plan)!r})
            assert CompiledPlan(load_plan(path), path.read_text()) == plan_snapshot(name)
        """
    )
    folder = pytester.path / "reviewed" / "plans"
    folder.mkdir(parents=True)
    others = {
        "broken": "{",
        "other": (GOLDEN / "digits-two.plan.json").read_text(),
        "aside": plan.read_text().replace('"compiler": "', '"compiler": "0.0.'),
        "unrelated": "{}",
    }
    for name, text in others.items():
        (folder / f"{name}.plan.json").write_text(text)
    result = run(pytester)
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        [
            "*there is no golden plan *reviewed/plans/absent.plan.json*",
            "*the golden plan *reviewed/plans/broken.plan.json cannot be read*",
            "*GEN0301*",
            "*the plan digits differs from *reviewed/plans/other.plan.json*",
            "*the plan digits differs from *reviewed/plans/aside.plan.json*",
            "*only in what nobody executes: provenance*",
        ]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")

    assert run(pytester, "--snapshot-update").ret == 0
    made = {path.name.partition(".")[0]: path.read_text() for path in folder.iterdir()}
    same = dict.fromkeys(("absent", "broken", "other", "aside"), plan.read_text())
    assert made == {**same, "unrelated": "{}"}, "golden files of others are never removed"


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
    said = run(pytester, "--fixtures", "-q").stdout
    said.fnmatch_lines_random(["genie_plan *", "*that compiles, once a session, to a plan.*"])
    said.fnmatch_lines_random(["plan_snapshot *", "*to the golden plan in the folder*"])


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
