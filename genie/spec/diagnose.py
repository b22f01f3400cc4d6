"""What pydantic and the cross checks find in a spec, as located errors in the user's terms."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sized
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from genie.spec.document import Node, PathItem, Report, locate, quoted
from genie.spec.scalars import resolve
from genie_schemas.spec import NAME_RULES, SPEC_VERSION, Inconsistency, Spec

__all__ = ["report_inconsistencies", "report_invalid"]

_MAX_CANDIDATES = 20
_MAX_CHECKED = 1000  # errors looked at; the rest of a hostile file is not worth the time

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}
_WRITE = {
    "a whole number": "write a number without quotes or fraction",
    "text": "put the value in quotes",
    "true or false": "write true or false without quotes",
    "a mapping": "write keys below it, or {key: value}",
    "a list": "write items below it, each after '- ', or [one, two]",
}
_ADD = {
    "genie": "add genie: 1",
    "name": "add name: my-model",
    "inputs": "add the parameters of forward: inputs: {x: {dtype: float32, shape: [batch, 3]}}",
    "dtype": "add dtype: float32",
    "shape": "add shape: [batch, 3]",
    "max": "add max: 64, or whatever the largest extent is",
    "id": "add id: d0",
}
_FOLLOWS = {"spec_inconsistent", "default_factory_not_called"}  # reported under their real cause
_DTYPE_SPELLINGS = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "int": "int64",
    "long": "int64",
    "i64": "int64",
    "i32": "int32",
    "boolean": "bool",
}


def describe(value: object) -> str:
    """A value of a document in a few words: what was found instead of what was expected."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a mapping" if isinstance(value, Mapping) else "a list"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _keys_at(path: tuple[PathItem, ...]) -> list[str]:
    """Keys that the mapping at `path` may have; empty when any key is allowed there."""
    model: type[BaseModel] = Spec
    items = list(path)
    while items:
        key = items.pop(0)
        by_key = {field.alias or name: field for name, field in model.model_fields.items()}
        if key not in by_key:
            return []
        annotation = by_key[str(key)].annotation
        inner = _model_in(annotation)
        if inner is None:
            return []
        if typing.get_origin(annotation) in (dict, tuple) and items:
            items.pop(0)  # the name or the position of an element
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _dotted(path: tuple[PathItem, ...]) -> str:
    text = "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in path)
    return text.removeprefix(".") or "the spec"


def _rule(context: Mapping[str, Any]) -> str:
    pattern = str(context.get("pattern", ""))
    return NAME_RULES.get(pattern, f"it must match {pattern}")


def _suggest(word: object, candidates: list[str]) -> str | None:
    close = get_close_matches(str(word), candidates, n=1)
    return f"did you mean {close[0]!r}?" if close else None


def _unknown_key(path: tuple[PathItem, ...], root: Node, report: Report) -> None:
    span, _ = locate(root, path, on_key=True)
    keys = _keys_at(path[:-1])
    word = str(path[-1])
    where = _dotted(path[:-1])
    if word == "<<":
        remedy: str | None = "YAML 1.2 has no merge keys; write the keys out"
    else:
        remedy = _suggest(word, keys) or f"possible keys: {', '.join(keys)}"
    report.add(
        "GEN0110",
        f"unknown key {quoted(word)} in {where}",
        span,
        remedy=remedy,
    )


def _limits(error: ErrorDetails) -> tuple[str, str]:
    """What limit was crossed, and what to write instead."""
    context, kind = error.get("ctx", {}), error["type"]
    if kind in ("too_short", "string_too_short"):
        least = context["min_length"]
        found = "is empty" if least == 1 else f"has fewer than {least} elements"
        return found, f"give at least {least}"
    if kind in ("too_long", "string_too_long"):
        most = context["max_length"]
        return f"has more than {most} elements or characters", f"give at most {most}"
    if kind == "greater_than_equal":
        return f"is {error['input']}, below its limit", f"write {context['ge']} or more"
    if kind == "less_than_equal":
        return f"is {error['input']}, above its limit", f"write {context['le']} or less"
    return error["msg"], "`genie schema spec` shows what is allowed"


def _wrong_type(error: ErrorDetails) -> tuple[str, str]:
    """What was expected, and what to write."""
    value = error["input"]
    expected = _EXPECTED.get(error["type"]) or error["msg"]
    if value is None:
        return expected, f"write {expected}, or remove the key"
    if isinstance(value, str) and expected in ("a whole number", "true or false"):
        typed = resolve(value)
        if isinstance(typed, int) and isinstance(typed, bool) == (expected == "true or false"):
            return expected, "remove the quotes"
    return expected, _WRITE.get(expected, f"write {expected}")


def _choice(error: ErrorDetails, key: object) -> tuple[list[str], str]:
    """The values allowed, and the one that was probably meant."""
    allowed = str(error.get("ctx", {}).get("expected", "")).replace(" or ", ", ")
    words = [word.strip().strip("'") for word in allowed.split(", ")]
    value = str(error["input"])
    known = _DTYPE_SPELLINGS.get(value) if key == "dtype" else None
    if known:
        return words, f"did you mean {known!r}?"
    return words, _suggest(value, words) or f"write {words[0]}, for example"


def _one(error: ErrorDetails, path: tuple[PathItem, ...], root: Node, report: Report) -> None:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if path and path[-1] == "[key]":
        span, _ = locate(root, path[:-1], on_key=True)
        default = f"{quoted(str(value))} is not a valid name; {_rule(context)}"
        reason, _, remedy = str(context.get("reason", default)).partition("; ")
        report.add("GEN0115", reason, span, remedy=remedy)
        return
    span, _ = locate(root, path, on_key=kind == "missing")
    name = _dotted(path)
    # Elements that are themselves invalid are missing from pydantic's count, not from the file.
    miscounted = kind == "too_short" and len(typing.cast(Sized, value)) >= context["min_length"]
    if miscounted or report.covers(span):
        return
    if kind == "extra_forbidden":
        _unknown_key(path, root, report)
    elif kind == "missing":
        key = str(path[-1])
        report.add(
            "GEN0111",
            f"the key {key!r} is missing in {_dotted(path[:-1])}",
            span,
            remedy=_ADD.get(key, f"add {key}"),
        )
    elif kind == "spec_version":
        report.add(
            "GEN0125",
            f"the spec has version {value}, and this Genie reads version {SPEC_VERSION}",
            span,
            remedy=f"write genie: {SPEC_VERSION}, or upgrade Genie if the spec needs it",
        )
    elif kind == "literal_error":
        words, remedy = _choice(error, path[-1])
        found = f"{name} is {describe(value)}; expected one of: {', '.join(words)}"
        report.add("GEN0113", found, span, remedy=remedy)
    elif kind == "string_pattern_mismatch":
        what = path[-1] if isinstance(path[-1], str) else "name"
        report.add(
            "GEN0115",
            f"{quoted(str(value))} is not a valid {what}",
            span,
            remedy=_rule(context),
        )
    elif kind == "spec_malformed":
        reason, _, remedy = error["msg"].partition("; ")
        report.add("GEN0115", reason, span, remedy=remedy or None)
    elif kind in _EXPECTED or kind == "spec_type":
        expected, remedy = _wrong_type(error)
        found = f"{name} must be {expected}, not {describe(value)}"
        report.add("GEN0112", found, span, remedy=remedy)
    elif kind == "spec_range":
        report.add("GEN0114", f"{error['msg']}, not {value}", span, remedy="write its extent")
    else:
        reason, remedy = _limits(error)
        report.add("GEN0114", f"{name} {reason}", span, remedy=remedy)


def report_invalid(error: ValidationError, root: Node, report: Report) -> None:
    """Add every error of one field to the report."""
    found = [
        (_without_tag(each["loc"]), each)
        for each in error.errors(include_url=False)[:_MAX_CHECKED]
        if each["type"] not in _FOLLOWS
    ]
    unknown: dict[tuple[PathItem, ...], list[str]] = {}
    for path, each in found:
        if each["type"] == "extra_forbidden":
            unknown.setdefault(path[:-1], []).append(str(path[-1]))
    for path, each in found:
        # A misspelt key is reported as unknown; that the right one is missing follows from it.
        misspelt = each["type"] == "missing" and get_close_matches(
            str(path[-1]), unknown.get(path[:-1], [])[:_MAX_CANDIDATES]
        )
        if not misspelt:
            _one(each, path, root, report)


def _without_tag(loc: tuple[PathItem, ...]) -> tuple[PathItem, ...]:
    """A pydantic location as a path of the file: a placement's union tag is no key of it."""
    tagged = loc[:1] == ("placement",) and loc[1:2] in (("(auto)",), ("(stages)",))
    return (*loc[:1], *loc[2:]) if tagged else loc


def report_inconsistencies(found: list[Inconsistency], root: Node, report: Report) -> None:
    """Add every contradiction between fields to the report."""
    for item in found[:_MAX_CHECKED]:
        span, _ = locate(root, item.path, on_key=item.on_key)
        if not report.covers(span):
            report.add(item.code, item.message, span, remedy=item.remedy)
