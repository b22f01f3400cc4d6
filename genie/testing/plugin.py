"""The pytest plugin for users: compile a plan in a test, and hold it to a golden one.

    def test_plan(genie_plan, plan_snapshot):
        assert genie_plan("model.py", "vision.yaml") == plan_snapshot

compares with `golden/NAME.plan.json`, NAME being the spec's name. The first run, and each change
that is meant, is accepted with `pytest --snapshot-update` and reviewed as a diff of that file.

Installed with `pip install 'genie-plan[testing]'`. pytest loads this module in every session, so
it imports nothing heavy: the compiler only when `genie_plan` is called, syrupy only with
`plan_snapshot`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from genie_schemas.plan import ExecutionPlan

__all__ = ["CompiledPlan", "GeniePlan", "PlanSnapshot"]

_OPTION = "genie_golden_dir"


@dataclass(frozen=True)
class CompiledPlan:
    """What `genie_plan` gives: the plan as a model, and the text of its file."""

    plan: ExecutionPlan = field(repr=False)
    text: str = field(repr=False)

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.plan.name

    @property
    def digest(self) -> str:
        """The plan's digest, over everything that is executed."""
        return self.plan.plan_digest

    def __repr__(self) -> str:
        return f"<plan {self.name} {self.digest[:19]}>"


GeniePlan = Callable[..., CompiledPlan]
"""`genie_plan(model, spec, **settings)`: see the fixture of that name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting that says where golden plans lie."""
    parser.addini(
        _OPTION, "Folder of the golden plans, relative to the root directory.", default="golden"
    )


@pytest.fixture(scope="session")
def genie_plan(request: pytest.FixtureRequest) -> GeniePlan:
    """A function `genie_plan(model, spec, **settings)` that compiles, once a session, to a plan.

    Paths are relative to pytest's root directory. `settings` are what `--set` gives on the
    command line. Nothing is written. An error of the model or the spec fails the test with the
    text that `genie compile` would print.
    """
    root = request.config.rootpath
    made: dict[tuple[Path, Path, tuple[tuple[str, str], ...]], CompiledPlan] = {}

    def compile_plan(model: str | Path, spec: str | Path, **settings: object) -> CompiledPlan:
        texts = {name: str(value) for name, value in settings.items()}
        key = (root / model, root / spec, tuple(sorted(texts.items())))
        if key not in made:
            made[key] = _compile(key[0], key[1], texts)
        return made[key]

    return compile_plan


def _compile(model: Path, spec: Path, settings: dict[str, str]) -> CompiledPlan:
    from genie.driver import compile_model
    from genie_schemas import writer
    from genie_schemas.errors import GenieError

    problem = None
    try:
        plan = compile_model(model, spec, None, settings)[0].plan
    except GenieError as error:
        problem = str(error)
    if problem is not None or plan is None:
        # Outside of the except block: the traceback through the compiler tells a user nothing.
        pytest.fail(f"genie compile {model.name} --spec {spec.name}\n{problem}", pytrace=False)
    return CompiledPlan(plan, writer.dumps(plan))


class PlanSnapshot:
    """What `plan_snapshot` gives: equal to a plan whose golden file has the same text.

    Call it with a name to compare with another file than the plan's own: `plan_snapshot("a100")`
    is `golden/a100.plan.json`.
    """

    def __init__(self, folder: Path, assertion: Any, name: str | None = None) -> None:
        self._folder = folder
        self._assertion = assertion
        self._name = name

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, name: str) -> PlanSnapshot:
        """The same, compared with the golden plan `name`."""
        return PlanSnapshot(self._folder, self._assertion, name)

    def __repr__(self) -> str:
        return f"<golden plan {self._name or ''}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CompiledPlan):
            return NotImplemented
        return bool(self._assertion(name=self._name or other.name) == other.text)

    def explain(self, plan: CompiledPlan) -> list[str]:
        """Lines that say how `plan` differs from its golden file."""
        from genie.plan.diff import diff_plans
        from genie.plan.diff_text import difference_text
        from genie_schemas.errors import GenieError
        from genie_schemas.reader import load_plan

        path = self._folder / f"{self._name or plan.name}.plan.json"
        accept = "pytest --snapshot-update writes it; then review the file and commit it"
        if not path.exists():
            return [f"there is no golden plan {path}", accept]
        try:
            golden = load_plan(path)
        except GenieError as error:
            return [f"the golden plan {path} cannot be read", *str(error).splitlines(), accept]
        found = diff_plans(golden, plan.plan)
        lines = [f"the plan {plan.name} differs from {path}"]
        if found.equal:
            aside = " and ".join(found.aside) or "layout of the file"
            lines.append(f"only in what nobody executes: {aside}")
        else:
            lines += difference_text(found, "golden", "now").splitlines()
        return [*lines, accept]


@pytest.fixture
def plan_snapshot(request: pytest.FixtureRequest) -> PlanSnapshot:
    """Compares with `==` to the golden plan in the folder of the setting `genie_golden_dir`.

    A plan that differs fails the test with the difference in steps, layers, devices and bytes.
    """
    try:
        from genie.testing.snapshots import golden_files
    except ImportError:
        pytest.fail("plan_snapshot needs syrupy: pip install 'genie-plan[testing]'", pytrace=False)
    folder = request.config.rootpath / str(request.config.getini(_OPTION))
    snapshot = request.getfixturevalue("snapshot")
    return PlanSnapshot(folder, snapshot.use_extension(golden_files(folder, "plan.json")))


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison of a plan with its golden one."""
    if op != "==":
        return None
    if isinstance(left, CompiledPlan) and isinstance(right, PlanSnapshot):
        return right.explain(left)
    if isinstance(right, CompiledPlan) and isinstance(left, PlanSnapshot):
        return left.explain(right)
    return None
