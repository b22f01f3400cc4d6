"""The spec's JSON Schema as an editor wants it: templates allowed, noise left out."""

from __future__ import annotations

from typing import Any

__all__ = ["editor_schema"]

_TEMPLATE = {"$ref": "#/$defs/Template"}


def _any_of(schema: dict[str, Any]) -> list[Any]:
    """Members of a union, with unions inside it spliced in and repeats dropped."""
    flat: list[Any] = []
    for member in schema["anyOf"]:
        inner = _any_of(member) if member.keys() == {"anyOf"} else [member]
        flat += [each for each in inner if each not in flat]
    return sorted(flat, key=lambda each: bool(each == _TEMPLATE))


def _for_editors(schema: Any) -> Any:
    """Let every scalar also be a template, which is how an editor sees it, and drop noise."""
    if isinstance(schema, list):
        return [_for_editors(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # Key patterns are left alone: keys are never rendered. A "title" only repeats the key.
    out = {
        key: value if key == "propertyNames" else _for_editors(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
    if isinstance(out.get("description"), str):
        out["description"] = " ".join(out["description"].split())
    scalar = out.get("type") in ("integer", "number", "boolean") or (
        out.get("type") == "string" and not out.keys().isdisjoint({"pattern", "enum", "const"})
    )
    if scalar:
        about = {key: out[key] for key in ("description", "default") if key in out}
        bare = {key: value for key, value in out.items() if key not in about}
        out = {**about, "anyOf": [bare, _TEMPLATE]}
    if "anyOf" in out:
        out["anyOf"] = _any_of({"anyOf": out["anyOf"]})
    return out


def editor_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the file that a user writes, from pydantic's of the rendered spec."""
    template = {
        "description": "Text with a Jinja2 template, rendered with the --set variables.",
        "type": "string",
        "pattern": r"\{[{%]",
    }
    defs = {name: _for_editors(each) for name, each in schema.pop("$defs").items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Genie spec, version 1",
        **_for_editors(schema),
        "$defs": {**defs, "Template": template},
    }
