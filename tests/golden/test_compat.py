"""Plans of every published format, frozen: each later reader must read them, byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import genie_schemas
from genie.plan.show import load, show_json, show_program, show_text
from genie_schemas import args, canonical, writer
from genie_schemas.reader import load_plan
from genie_schemas.verify import verify
from genie_schemas.versions import PLAN_FORMAT
from tests.golden.support import GOLDEN

COMPAT = GOLDEN / "compat"
PLANS = sorted(COMPAT.glob("*/*.plan.json"))
RUNNABLE = [
    COMPAT / f"{name}.plan.json" for name in ("1.0/digits", "1.0/digits-two", "1.1/tiny-lm")
]


def ids(path: Path) -> str:
    return f"{path.parent.name}-{path.name.removesuffix('.plan.json')}"


def test_this_format_is_among_the_frozen_ones() -> None:
    assert (COMPAT / PLAN_FORMAT).is_dir()
    assert len(PLANS) >= 3


@pytest.mark.parametrize("folder", sorted({p.parent for p in PLANS}), ids=lambda p: p.name)
def test_frozen_plans_are_never_changed(folder: Path) -> None:
    """SHA256SUMS is what `sha256sum *.plan.json` printed when the format was published."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.plan.json")}
    assert found == sums


@pytest.mark.parametrize("path", PLANS, ids=ids)
def test_frozen_plans_are_read(path: Path) -> None:
    plan = load_plan(path)
    assert plan.format_version == path.parent.name
    again = writer.plan_data(plan)
    assert writer.plan_digest(again) == plan.plan_digest
    if plan.format_version == PLAN_FORMAT:
        assert writer.dumps(plan) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RUNNABLE, ids=ids)
def test_frozen_plans_are_verified(path: Path) -> None:
    verify(load_plan(path))


@pytest.mark.parametrize("path", PLANS, ids=ids)
def test_frozen_plans_are_shown(path: Path) -> None:
    shown = load(path)
    text = show_text(shown)
    assert f"plan {path.name.removesuffix('.plan.json')}  sha256:" in text
    body = json.loads(json.dumps(show_json(shown)))
    assert body["runnable"] == (path in RUNNABLE)
    for program in body["programs"]:
        assert f"program {program['key']}" in (show_program(shown, program["key"]) or "")


def test_the_synthetic_plan_uses_every_field_and_every_kind_of_argument() -> None:
    data = canonical.loads((COMPAT / "1.0" / "every-field.plan.json").read_text(encoding="utf-8"))
    schemas = Path(genie_schemas.__file__).parent / "json"
    schema = json.loads((schemas / "plan-1.0.schema.json").read_text())
    used = {key for item in _objects(data) for key in item}
    wanted = {
        name
        for model in (schema, *schema["$defs"].values())
        for name in model.get("properties", {})
    }
    assert wanted - used == set()
    kinds = {s["kind"] for s in data["steps"]}
    assert kinds == {"load", "compute", "transfer", "free", "return"}
    tags = {k for o in _objects(data["programs"]) for k in o if len(o) == 1}
    assert {"i", "f", "c", "s", "v", "e", "dtype", "device", "layout", "memory_format"} <= tags
    assert "program" in tags
    for program in data["programs"].values():
        for op in program["ops"]:
            for value in (*op["args"], *op.get("kwargs", {}).values()):
                assert args.encode(args.decode(value)) == value


def test_the_plan_of_each_later_format_uses_what_the_format_brought() -> None:
    """Fields of every model; every field of a model that is new."""
    schemas = Path(genie_schemas.__file__).parent / "json"
    before, after = (
        json.loads((schemas / f"plan-{name}.schema.json").read_text())["$defs"]
        for name in ("1.0", "1.1")
    )
    news = {
        name
        for model in after
        for name in after[model].get("properties", {})
        if name not in before.get(model, {}).get("properties", {})
    }
    assert {"value", "sample", "capacity"} <= news
    data = canonical.loads((COMPAT / "1.1" / "tiny-lm.plan.json").read_text(encoding="utf-8"))
    assert news <= {key for item in _objects(data) for key in item}
    assert any(len(step.get("effect", "")) > 1 for step in data["steps"])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from _objects(item)
