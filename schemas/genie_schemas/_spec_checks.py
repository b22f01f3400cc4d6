"""Checks across the fields of a spec, on a plain document that may be invalid in other ways.

Each check skips what has the wrong type, because the models report that. It can therefore run on
any document, and a user sees a misspelt key and an undeclared dimension in one go.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from genie_schemas.errors import CODES

_INTEGER_RANGES = {
    "int64": (-(2**63), 2**63),
    "int32": (-(2**31), 2**31),
    "int16": (-(2**15), 2**15),
    "int8": (-128, 128),
    "uint8": (0, 256),
}


@dataclass(frozen=True)
class Inconsistency:
    """Two parts of a spec that contradict each other.

    `path` leads to the offending value, or to its key when `on_key`; `code` is in the catalog.
    """

    code: str
    path: tuple[str | int, ...]
    message: str
    remedy: str
    on_key: bool = False


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_name(text: object) -> bool:
    return isinstance(text, str) and text.isidentifier() and not keyword.iskeyword(text)


def _shape_checks(document: Mapping[str, Any]) -> Iterator[Inconsistency]:
    dims = _mapping(document.get("dims"))
    used: set[str] = set()
    for name, tensor in _mapping(document.get("inputs")).items():
        for axis, extent in enumerate(_sequence(_mapping(tensor).get("shape"))):
            if not isinstance(extent, str) or not _is_name(extent):
                continue
            if extent in dims:
                used.add(extent)
                continue
            close = get_close_matches(extent, dims, n=1)
            used.update(close)  # the same slip is not reported again as an unused dimension
            yield Inconsistency(
                "GEN0116",
                ("inputs", name, "shape", axis),
                f"dimension {extent!r} is not declared",
                f"did you mean {close[0]!r}?"
                if close
                else f"declare it: dims: {{{extent}: {{min: 1, max: 64}}}}",
            )
    for name in dims:
        if name not in used and _is_name(name):
            yield Inconsistency(
                "GEN0117",
                ("dims", name),
                f"dimension {name!r} is declared and never used",
                "use it in the shape of an input, or remove it",
                on_key=True,
            )


def _range_checks(document: Mapping[str, Any]) -> Iterator[Inconsistency]:
    for name, dim in _mapping(document.get("dims")).items():
        dim = _mapping(dim)
        low, high = _integer(dim.get("min", 1)), _integer(dim.get("max"))
        example = _integer(dim.get("example"))
        if low is None or high is None or low < 1 or high < 2:
            continue
        if low >= high:
            yield Inconsistency(
                "GEN0118",
                ("dims", name, "max"),
                f"dimension {name!r} has min {low} and max {high}; a range needs min < max",
                f"write {high} in the shapes instead of {name!r}"
                if low == high
                else "swap the two",
            )
        elif example is not None and (example == 1 or not low <= example <= high):
            yield Inconsistency(
                "GEN0118",
                ("dims", name, "example"),
                "an example of 1 would fix the dimension to 1"
                if example == 1
                else f"example {example} lies outside {low}..{high}",
                f"use {min(max(2, low), high)}, or leave it out",
            )


def _example_value_checks(document: Mapping[str, Any]) -> Iterator[Inconsistency]:
    for name, tensor in _mapping(document.get("inputs")).items():
        tensor = _mapping(tensor)
        dtype = tensor.get("dtype")
        given = [k for k in ("low", "high") if tensor.get(k) not in (None, 0)]
        if not isinstance(dtype, str) or not given:
            continue
        if dtype not in _INTEGER_RANGES:
            if dtype == "bool" or "float" in dtype:
                yield Inconsistency(
                    "GEN0114",
                    ("inputs", name, given[0]),
                    f"{given[0]} bounds example values of integer inputs, and {name!r} is {dtype}",
                    f"remove {given[0]}",
                    on_key=True,
                )
            continue
        least, beyond = _INTEGER_RANGES[dtype]
        low = _integer(tensor.get("low", 0))
        high = low + 2 if tensor.get("high") is None and low is not None else None
        high = _integer(tensor.get("high")) if high is None else high
        if low is not None and high is not None and not least <= low < high <= beyond:
            yield Inconsistency(
                "GEN0114",
                ("inputs", name, given[-1]),
                f"example values from {low} up to but not including {high} are no range of {dtype}",
                f"choose {least} <= low < high <= {beyond}",
            )


def _device_checks(document: Mapping[str, Any]) -> Iterator[Inconsistency]:
    declared: list[str] = []
    if "devices" in document:
        for index, device in enumerate(_sequence(document["devices"])):
            name = _mapping(device).get("id")
            if not isinstance(name, str):
                continue
            if name in declared:
                yield Inconsistency(
                    "GEN0120",
                    ("devices", index, "id"),
                    f"device {name!r} is declared twice",
                    "give each device an id of its own",
                )
            declared.append(name)
    else:
        declared.append("d0")

    owner: dict[str, int] = {}
    for index, stage in enumerate(_sequence(_mapping(document.get("placement")).get("stages"))):
        stage = _mapping(stage)
        device = stage.get("device")
        if isinstance(device, str) and device not in declared:
            close = get_close_matches(device, declared, n=1)
            yield Inconsistency(
                "GEN0119",
                ("placement", "stages", index, "device"),
                f"device {device!r} is not declared",
                f"did you mean {close[0]!r}?"
                if close
                else f"declare it under devices, or use one of: {', '.join(declared[:8])}",
            )
        for position, module in enumerate(_sequence(stage.get("modules"))):
            if not isinstance(module, str):
                continue
            if module in owner:
                yield Inconsistency(
                    "GEN0120",
                    ("placement", "stages", index, "modules", position),
                    f"module {module!r} is already in stage {owner[module] + 1}",
                    "name each module in one stage only",
                )
            owner.setdefault(module, index)


def _policy_checks(document: Mapping[str, Any]) -> Iterator[Inconsistency]:
    for name, policy in _mapping(document.get("policies")).items():
        if name != "default":
            yield Inconsistency(
                "GEN0126",
                ("policies", name),
                f"no step would follow the policy {name!r}",
                "write what you want under `default`, which every step follows",
                on_key=True,
            )
        for index, code in enumerate(_sequence(_mapping(policy).get("retry_on"))):
            if isinstance(code, str) and code not in CODES:
                close = get_close_matches(code.upper(), CODES, n=1)
                yield Inconsistency(
                    "GEN0113",
                    ("policies", name, "retry_on", index),
                    f"{code!r} is not an error code",
                    f"did you mean {close[0]}?" if close else "`genie explain` lists them",
                )


def _llm_checks(document: Mapping[str, Any]) -> Iterator[Inconsistency]:
    if "llm" not in document or document["llm"] is None:
        return
    workload = document.get("workload", "auto")
    if isinstance(workload, str) and workload not in ("auto", "llm"):
        yield Inconsistency(
            "GEN0127",
            ("llm",),
            f"an llm section bounds a language model's cache, and the workload is {workload!r}",
            "remove the section, or write workload: llm",
            on_key=True,
        )
    if "inputs" in document:
        yield Inconsistency(
            "GEN0127",
            ("inputs",),
            "the inputs of a language model with a cache follow from the model",
            "remove inputs to compile prefill, decode and generate; remove llm to compile the "
            "forward with these inputs",
            on_key=True,
        )
    llm = _mapping(document["llm"])
    cache, prompt = _integer(llm.get("max_cache_len")), _integer(llm.get("max_prompt_len"))
    if cache is not None and prompt is not None and prompt > cache >= 2:
        yield Inconsistency(
            "GEN0127",
            ("llm", "max_prompt_len"),
            f"prompts of {prompt} tokens do not fit a cache of {cache}",
            f"lower max_prompt_len to {cache} or less, or raise max_cache_len",
        )


def inconsistencies(document: object) -> list[Inconsistency]:
    """All contradictions within `document`, a spec as plain mappings, lists and scalars."""
    spec = _mapping(document)
    return [
        found
        for check in (
            _shape_checks,
            _range_checks,
            _example_value_checks,
            _device_checks,
            _policy_checks,
            _llm_checks,
        )
        for found in check(spec)
    ]
