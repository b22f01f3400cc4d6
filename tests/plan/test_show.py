"""`plan show` on sound plans, and on everything that calls itself a plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from genie.plan.show import load, program_of, show_json, show_program, show_text
from genie.plan.show_semantics import semantics_text
from genie.plan.text import call_text, columns, few, short_digest, size_text
from genie_schemas.errors import GenieError
from tests.plan.support import COMPAT, GOLDEN, data_of, edited, step

NAMES = sorted(p.name.removesuffix(".plan.json") for p in GOLDEN.glob("*.plan.json"))


def shown(name: str) -> Any:
    return load(GOLDEN / f"{name}.plan.json")


def write(folder: Path, data: Any) -> Path:
    path = folder / "x.plan.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_golden_plans_can_run_and_fit_on_two_screens(name: str) -> None:
    found = shown(name)
    said = show_text(found)
    assert found.problems == ()
    assert "cannot run" not in said
    assert len(said.splitlines()) < 110
    assert json.loads(json.dumps(show_json(found)))["runnable"] is True


def test_what_is_shown(snapshot: SnapshotAssertion) -> None:
    plan = load(COMPAT / "digits-two.plan.json")
    assert show_text(plan) == snapshot(name="two devices")
    assert semantics_text(plan) == snapshot(name="semantics")
    assert show_program(plan, "head/compute@d1") == snapshot(name="a step's program")
    assert show_text(load(COMPAT / "every-field.plan.json")) == snapshot(name="every field")


def test_repeated_layers_are_shown_as_one_program() -> None:
    assert "12 × " in show_text(shown("bert"))


def test_a_program_by_its_key_has_no_actual_names() -> None:
    plan = shown("digits")
    key = plan.data["steps"][1]["program"]
    found = program_of(plan, key)
    assert found is not None
    assert (found["step"], found["reads"]) == (None, None)
    assert " = " not in (show_program(plan, key) or "").partition("  ops")[0]
    assert show_program(plan, "nothing") is None
    assert show_program(plan, "stem/load@d0") is None


# -- plans that cannot run -----------------------------------------------------------------------


def test_a_newer_plan_is_shown_with_a_note(tmp_path: Path) -> None:
    data = data_of("digits") | {"format_version": "9.0", "min_reader": "9.0", "weather": {}}
    said = show_text(load(write(tmp_path, data)))
    assert "GEN0305: the plan needs a reader of format 9.0" in said
    assert "fields of another version, not shown: weather" in said
    assert "layer1" in said


def test_a_plan_with_a_wrong_digest_is_shown_with_a_note(tmp_path: Path) -> None:
    data = data_of("digits")
    data["devices"]["d0"]["needs"] += 1
    said = show_text(load(write(tmp_path, data)))
    assert "GEN0304" in said
    assert "layer1" in said


def test_an_unsound_plan_is_shown_with_its_first_problems(tmp_path: Path) -> None:
    plan = edited(data_of("digits"), lambda d: step(d, "layer1/load@d0").update(reads=[]))
    found = load(write(tmp_path, plan.model_dump(mode="json", exclude_defaults=True)))
    said = show_text(found)
    assert said.count("GEN0308") == 5
    assert "plan verify` lists them" in said
    assert show_json(found)["problems"][0]["code"].startswith("GEN03")


@pytest.mark.parametrize(
    ("content", "code"),
    [("{", "GEN0301"), ('{"format": "other"}', "GEN0302"), ("[]", "GEN0301"), ("{}", "GEN0302")],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, content: str, code: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(GenieError) as caught:
        load(path)
    assert caught.value.code == code


def test_a_header_alone_is_shown(tmp_path: Path) -> None:
    found = load(write(tmp_path, {"format": "genie.execution_plan"}))
    assert "(without a name)" in show_text(found)
    assert "says nothing" in semantics_text(found)


def _places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _places(value, (*path, key))


PLACES = [p for p in _places(data_of("every-field")) if p and p != ("format",)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=4))
def test_any_json_in_any_place_is_shown(edits: Any, tmp_path: Path) -> None:
    data = data_of("every-field")
    for path, value in edits:
        target = data
        for key in path[:-1]:
            try:
                target = target[key]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if isinstance(target, dict) or (
                isinstance(target, list) and isinstance(path[-1], int) and path[-1] < len(target)
            ):
                target[path[-1]] = value
    found = load(write(tmp_path, data))
    assert show_text(found).startswith("plan ")
    assert semantics_text(found)
    json.dumps(show_json(found))
    for program in found.summary.programs:
        show_program(found, program.key)


# -- pieces of text ------------------------------------------------------------------------------


def test_sizes() -> None:
    sizes = [size_text(n) for n in (None, 0, 1023, 1024, 1536, 2**30, 3 * 2**41)]
    assert sizes == ["?", "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 GiB", "6.0 TiB"]


def test_lists_digests_and_columns() -> None:
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert few([]) == ""
    assert short_digest("sha256:" + "ab" * 32) == "sha256:abababababab"
    assert short_digest({"no": 1}) == '{"no": 1}'
    assert columns([("a", "", "b"), ("long", "", "c", "d")]) == ["  a     b", "  long  c  d"]
    assert columns([]) == []


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (
            {"out": ["y"], "op": "aten.relu.default", "args": [{"v": "x"}]},
            "y = aten.relu.default(x)",
        ),
        ({"out": [None], "op": "f", "args": [], "kwargs": {"a": {"s": "b"}}}, "_ = f(a='b')"),
        ({"out": [], "op": "f", "args": [{"bad": 1}]}, '() = f({"bad": 1})'),
        ({}, "() = null()"),
        ("no call", "no call"),
    ],
)
def test_calls_are_written_as_the_graph_printer_writes_them(op: Any, said: str) -> None:
    assert call_text(op) == said
