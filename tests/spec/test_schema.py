"""The committed JSON Schema of specs: it is the generated one, and it fits the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import genie_schemas
from genie_schemas.spec import spec_json_schema

COMMITTED = Path(genie_schemas.__file__).parent / "json" / "spec-1.schema.json"


def _breaking(old: Any, new: Any, at: str = "") -> list[str]:
    """Where `new` refuses what `old` allowed: keys removed, keys newly required, types narrowed."""
    found: list[str] = []
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.get("properties", {}):
            if key not in new.get("properties", {}):
                found.append(f"{at}/{key} is gone")
        found += [
            f"{at}/{key} is now required"
            for key in new.get("required", [])
            if key not in old.get("required", [])
        ]
        found += [
            f"{at}: {value!r} is no longer allowed"
            for value in old.get("enum", [])
            if value not in new.get("enum", [])
        ]
        for key in old:
            if key in new:
                found += _breaking(old[key], new[key], f"{at}/{key}")
    if isinstance(old, list) and isinstance(new, list):  # anyOf: members keep their places
        for index, (one, other) in enumerate(zip(old, new, strict=False)):
            found += _breaking(one, other, f"{at}/{index}")
    if isinstance(old, str) and at.endswith("/type") and old != new:
        found.append(f"{at} was {old}, is {new}")
    return found


def test_the_committed_schema_is_current() -> None:
    committed, current = json.loads(COMMITTED.read_text()), spec_json_schema()
    if committed == current:
        assert COMMITTED.read_text() == json.dumps(current, indent=2) + "\n"
        return
    breaking = _breaking(committed, current)
    due = (
        f"specs that were valid no longer are ({'; '.join(breaking)}): the key `genie` becomes 2"
        if breaking
        else "every valid spec stays valid: version 1 remains; regenerate the file with"
        " `genie schema spec > schemas/genie_schemas/json/spec-1.schema.json`"
        " and add a changelog fragment"
    )
    raise AssertionError(f"the spec's schema has changed. {due}")


def test_narrowing_the_schema_counts_as_breaking() -> None:
    old = spec_json_schema()
    new = json.loads(json.dumps(old))
    del new["properties"]["workload"]
    new["$defs"]["Dim"]["required"] = ["max", "example"]
    new["$defs"]["Input"]["properties"]["dtype"]["anyOf"][0]["enum"].remove("bool")
    assert len(_breaking(old, new)) == 3
    assert _breaking(old, {**old, "properties": {**old["properties"], "more": {}}}) == []


def test_every_key_is_described() -> None:
    schema = spec_json_schema()
    models = [m for m in schema["$defs"].values() if "properties" in m]
    assert len(models) == 9
    for model in (schema, *models):
        assert model["additionalProperties"] is False
        for name, field in model["properties"].items():
            referred = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
            assert field.get("description") or referred.get("description"), name
