"""The committed JSON Schema of plans, and the version bump that a change of it is due."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import genie_schemas
from genie_schemas.plan import FORMAT_VERSION, plan_json_schema
from genie_schemas.schema_drift import schema_drift
from genie_schemas.versions import LOG, PLAN_FORMAT, release

FOLDER = Path(genie_schemas.__file__).parent / "json"
COMMITTED = FOLDER / f"plan-{PLAN_FORMAT}.schema.json"


def test_the_committed_schema_is_current() -> None:
    current = plan_json_schema()
    text = json.dumps(current, indent=2) + "\n"
    if COMMITTED.read_text() == text:
        return
    drift = schema_drift(json.loads(COMMITTED.read_text()), current)
    major, minor = release(PLAN_FORMAT)
    due = {
        "none": f"only prose: write it anew with `genie schema plan > {COMMITTED.name}`",
        "minor": f"documents of {PLAN_FORMAT} stay valid: PLAN_FORMAT becomes {major}.{minor + 1}",
        "major": f"documents of {PLAN_FORMAT} may be refused: PLAN_FORMAT becomes {major + 1}.0",
    }[drift.bump]
    raise AssertionError(f"the plan's schema has changed; {due}\n{drift}")


def test_there_is_one_format_version() -> None:
    assert FORMAT_VERSION == PLAN_FORMAT
    assert [c.version for c in LOG if c.subject == "plan"][-1] == PLAN_FORMAT


def test_published_schemas_differ_as_their_versions_say() -> None:
    published = sorted(
        (release(p.name.removeprefix("plan-").removesuffix(".schema.json")), p)
        for p in FOLDER.glob("plan-*.schema.json")
    )
    assert published[-1][1] == COMMITTED
    for (old, before), (new, after) in itertools.pairwise(published):
        bump = schema_drift(json.loads(before.read_text()), json.loads(after.read_text())).bump
        assert bump == ("major" if new[0] > old[0] else "minor"), (before.name, after.name)


# -- what the drift is due -----------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], object]


def _step(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"]["ComputeStep"]
    return found


EDITS: dict[str, tuple[str, Edit]] = {
    "another description": ("none", lambda s: s["$defs"]["Dim"].update(description="other")),
    "an optional field": (
        "minor",
        lambda s: _step(s)["properties"].update(hint={"type": "string", "default": ""}),
    ),
    "a required field": (
        "major",
        lambda s: (_step(s)["properties"].update(hint={}), _step(s)["required"].append("hint")),
    ),
    "a field that is gone": ("major", lambda s: _step(s)["properties"].pop("after")),
    "no longer required": ("minor", lambda s: _step(s)["required"].remove("writes")),
    "a further enum value": (
        "minor",
        lambda s: _step(s)["properties"]["priority"]["enum"].append("bulk"),
    ),
    "an enum value less": (
        "major",
        lambda s: _step(s)["properties"]["priority"]["enum"].remove("weights"),
    ),
    "another default": (
        "major",
        lambda s: _step(s)["properties"]["priority"].update(default="decode"),
    ),
    "a longer name": ("minor", lambda s: _step(s)["properties"]["id"].update(maxLength=512)),
    "a shorter name": ("major", lambda s: _step(s)["properties"]["id"].update(maxLength=64)),
    "a bound that is gone": ("minor", lambda s: _step(s)["properties"]["id"].pop("maxLength")),
    "a new bound": ("major", lambda s: _step(s)["properties"]["id"].update(minLength=2)),
    "another pattern": ("major", lambda s: _step(s)["properties"]["id"].update(pattern="^a$")),
    "another type": (
        "major",
        lambda s: _step(s)["properties"]["program"].update(type="integer"),
    ),
    "a further kind of step": (
        "minor",
        lambda s: s["properties"]["steps"]["items"]["oneOf"].append({"$ref": "#/$defs/SignalStep"}),
    ),
    "a kind of step less": (
        "major",
        lambda s: s["properties"]["steps"]["items"]["oneOf"].pop(),
    ),
    "an open object": ("minor", lambda s: _step(s).pop("additionalProperties")),
    "another const": (
        "major",
        lambda s: s["properties"]["format"].update(const="genie.other"),
    ),
    "an unknown keyword": ("major", lambda s: _step(s).update(dependentRequired={"a": ["b"]})),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_kind_of_change_is_due_its_bump(name: str) -> None:
    due, edit = EDITS[name]
    old = plan_json_schema()
    new = copy.deepcopy(old)
    edit(new)
    drift = schema_drift(old, new)
    assert drift.bump == due, str(drift)
    assert (str(drift) == "") == (due == "none")
    if due == "minor":
        assert schema_drift(new, old).bump == "major", "what widens one way narrows the other"


def test_a_reordered_alternative_is_no_change() -> None:
    old = plan_json_schema()
    new = copy.deepcopy(old)
    new["properties"]["steps"]["items"]["oneOf"].reverse()
    assert schema_drift(old, new).bump == "none"
    assert schema_drift(old, old).changes == ()
