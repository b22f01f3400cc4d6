"""Writing a plan: fixed field order, two-space indent, one op, one value, one step on one line."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from genie_schemas import canonical
from genie_schemas.plan import ExecutionPlan

UNDIGESTED = ("plan_digest", "provenance", "advisory")
"""Top-level fields that `plan_digest` does not cover."""

_ONE_LINE_ENTRIES = (
    "dims",
    "devices",
    "links",
    "constants",
    "state",
    "values",
    "policies",
    "loops",
)


def to_data(model: BaseModel) -> Any:
    """Plain JSON values of a model in field order; fields at their default are left out."""
    return model.model_dump(mode="json", exclude_defaults=True)


def step_data(step: BaseModel) -> dict[str, Any]:
    """A step as it is written: identity and dataflow first, then what differs from the default."""
    data = to_data(step)
    head = ("id", "kind", "device", "src", "dst", "program", "reads", "writes")
    ordered = {key: data[key] for key in head if key in data}
    return ordered | {key: value for key, value in data.items() if key not in ordered}


def plan_data(plan: ExecutionPlan) -> dict[str, Any]:
    """The plan as plain JSON values in the order of the file."""
    data: dict[str, Any] = to_data(plan)
    data["steps"] = [step_data(step) for step in plan.steps]
    return data


def plan_digest(data: dict[str, Any]) -> str:
    """The digest that a plan of these JSON values must carry."""
    return canonical.digest({k: v for k, v in data.items() if k not in UNDIGESTED})


def program_key(program: Any) -> str:
    """The key under which a program's JSON values stand in `programs`: 16 digits of its digest."""
    return canonical.digest(program).removeprefix("sha256:")[:16]


def dumps(plan: ExecutionPlan) -> str:
    """The text of the plan's file, newline at the end."""
    data = plan_data(plan)
    lines = ["{"]
    last = list(data)[-1]
    for key, value in data.items():
        lines += _field(key, value, "  ", "" if key == last else ",")
    return "\n".join([*lines, "}", ""])


def _field(key: str, value: Any, pad: str, comma: str) -> list[str]:
    head = f"{pad}{canonical.compact(key)}: "
    if key in _ONE_LINE_ENTRIES and value:
        return [head + "{", *_entries(value, pad + "  "), pad + "}" + comma]
    if key == "steps" and value:
        return [head + "[", *_items(value, pad + "  "), pad + "]" + comma]
    if key == "entrypoints" or key == "programs":
        return _blocks(head, value, pad, comma)
    if key in ("opset", "provenance"):
        return [head + "{", *_opened(value, pad + "  "), pad + "}" + comma]
    if key == "advisory" and value:
        return [head + "{", *_opened(value, pad + "  "), pad + "}" + comma]
    return [head + canonical.compact(value) + comma]


def _blocks(head: str, value: dict[str, Any], pad: str, comma: str) -> list[str]:
    if not value:
        return [head + "{}" + comma]
    lines = [head + "{"]
    names = list(value)
    for name in names:
        inner = pad + "  "
        lines.append(f"{inner}{canonical.compact(name)}: {{")
        lines += _opened(value[name], inner + "  ")
        lines.append(inner + "}" + ("" if name == names[-1] else ","))
    return [*lines, pad + "}" + comma]


def _opened(value: dict[str, Any], pad: str) -> list[str]:
    """An object whose lists and nested objects have one entry on a line."""
    lines: list[str] = []
    names = list(value)
    for name in names:
        comma = "" if name == names[-1] else ","
        head = f"{pad}{canonical.compact(name)}: "
        item = value[name]
        if isinstance(item, list) and item:
            lines += [head + "[", *_items(item, pad + "  "), pad + "]" + comma]
        elif isinstance(item, dict) and item:
            lines += [head + "{", *_entries(item, pad + "  "), pad + "}" + comma]
        else:
            lines.append(head + canonical.compact(item) + comma)
    return lines


def _entries(value: dict[str, Any], pad: str) -> list[str]:
    lines: list[str] = []
    names = list(value)
    for name in names:
        comma, item = "" if name == names[-1] else ",", value[name]
        head = f"{pad}{canonical.compact(name)}: "
        if isinstance(item, list) and item and all(isinstance(entry, dict) for entry in item):
            lines += [head + "[", *_items(item, pad + "  "), pad + "]" + comma]
        else:
            lines.append(head + canonical.compact(item) + comma)
    return lines


def _items(value: list[Any], pad: str) -> list[str]:
    last = len(value) - 1
    return [f"{pad}{canonical.compact(v)}{'' if i == last else ','}" for i, v in enumerate(value)]
