"""Whatever is changed in a plan, it is refused, or runs without doing harm."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_schemas.reader import read_plan
from tests.capture.reference import Interpreter, Undeclared
from tests.schemas.attacks import codes, data, original, reordered, sealed

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**53),
    st.sampled_from(["", "d0", "d1", "x", "b", "b*2", "scale", "f32[b,6]", "f32[4]", "free", "é"]),
    st.sampled_from([{"v": "x"}, {"e": "b-1"}, {"f": "nan"}, {"s": "a"}, [], {}]),
)


def _places(item: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    pairs = item.items() if isinstance(item, dict) else enumerate(item)
    for key, value in pairs:
        if isinstance(value, dict | list):
            found += _places(value, (*path, key))
        else:
            found.append((*path, key))
    return found


def _change(plan: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """One random change somewhere."""
    path = draw(st.sampled_from(_places(plan)))
    holder = plan
    for key in path[:-1]:
        holder = holder[key]
    key = path[-1]
    kind = draw(st.sampled_from(["replace", "delete", "copy", "swap", "move"]))
    if kind == "replace":
        holder[key] = copy.deepcopy(draw(scalars))  # a later change may change it
    elif kind == "delete":
        del holder[key]
    elif isinstance(holder, list):
        other = draw(st.integers(0, len(holder) - 1))
        if kind == "copy":
            holder.insert(other, json.loads(json.dumps(holder[key])))
        elif kind == "swap":
            holder[key], holder[other] = holder[other], holder[key]
        else:
            holder.insert(other, holder.pop(key))
    else:
        other = draw(st.sampled_from(sorted(holder)))
        if kind == "copy":
            holder[f"{key}2"] = holder[key]
        elif kind == "swap":
            holder[key], holder[other] = holder[other], holder[key]
        else:
            holder[draw(st.sampled_from(["x", "d0", "slice", "new"]))] = holder.pop(key)


@given(st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_change_is_refused_or_harmless(chosen: st.DataObject) -> None:
    plan = data()
    for _ in range(chosen.draw(st.integers(1, 3))):
        _change(plan, chosen.draw)
    reorder = chosen.draw(st.booleans())
    try:
        if reorder:
            reordered(plan)
        text = sealed(plan)
    except (KeyError, TypeError, AttributeError, ValueError):
        text = json.dumps(plan)  # such as an integer that no digest can be made of
    if codes(text):
        return
    accepted = read_plan(text)
    given_inputs = {
        item.name: torch.ones(3, 6)
        for entry in accepted.entrypoints.values()
        for item in entry.inputs
    }
    for name in accepted.entrypoints:
        try:
            Interpreter(accepted, original().folder, name).run(given_inputs)
        except (Undeclared, RuntimeError, IndexError, ValueError):
            continue  # only running a program tells what its operators make of these shapes
