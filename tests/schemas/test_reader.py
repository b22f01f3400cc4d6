"""Reading: any bytes are a plan or a diagnosed error, and a plan is written as it was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genie_schemas import reader, writer
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.reader import load_plan, read_plan
from genie_schemas.verify import verify
from tests.schemas.attacks import codes, data, original, sealed

HEAD = {"format": "genie.execution_plan", "format_version": "1.0", "min_reader": "1.0"}

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.sampled_from([*data(), "more"])


@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(max_size=80),
        json_values.map(json.dumps),
        st.dictionaries(fields, json_values).map(lambda d: json.dumps(HEAD | d)),
        st.dictionaries(fields, json_values).map(lambda d: json.dumps(data() | d)),
    )
)
@settings(max_examples=300)
@example(b"\xff")
@example(b"")
@example("[" * 100_000)
@example('{"format": "genie.execution_plan", "format_version": "\u0661.0", "min_reader": "1.0"}')
@example(json.dumps(HEAD | {"\ud800": 1}))
@example(json.dumps(data() | {"name": "\ud800"}))
def test_any_text_is_a_plan_or_a_diagnosed_error(text: str | bytes) -> None:
    try:
        verify(read_plan(text, "any.plan.json"))
    except GenieErrors as errors:
        assert errors.errors
    except GenieError as error:
        assert error.code.startswith("GEN03")
        assert error.remedy
        assert error.place is not None
        assert error.place.file == "any.plan.json"


def test_what_is_read_is_written_alike() -> None:
    text = original().text
    assert writer.dumps(read_plan(text)) == text
    assert writer.dumps(read_plan(text.encode())) == text
    assert text.endswith("}\n")
    assert text.isascii()


def test_every_op_value_and_step_has_a_line_of_its_own() -> None:
    lines = original().text.splitlines()
    plan = original().plan
    for step in plan.steps:
        assert sum(f'"id": "{step.id}"' in line for line in lines) == 1
    for name in plan.values:
        assert sum(line.lstrip().startswith(f'"{name}": {{') for line in lines) == 1
    ops = [op for program in plan.programs.values() for op in program.ops]
    assert sum(line.lstrip().startswith('{"out": ') for line in lines) == len(ops)


def test_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(GenieError) as caught:
            load_plan(path)
        assert caught.value.code == "GEN0300"
    (tmp_path / "cut.json").write_text(original().text[:500])
    with pytest.raises(GenieError) as caught:
        load_plan(tmp_path / "cut.json")
    assert caught.value.code == "GEN0301"
    assert caught.value.place is not None
    assert caught.value.place.line is not None


def test_a_file_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BYTES", 100)
    (tmp_path / "large.json").write_text(original().text)
    with pytest.raises(GenieError) as caught:
        load_plan(tmp_path / "large.json")
    assert caught.value.code == "GEN0314"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"format": "genie.result"}, "GEN0302"),
        ({"format": None}, "GEN0302"),
        ({"format_version": 1}, "GEN0303"),
        ({"format_version": "1.0.0"}, "GEN0303"),
        ({"format_version": "\u0661.\u0660"}, "GEN0303"),
        ({"min_reader": "1.2"}, "GEN0305"),
        ({"min_reader": "2.0"}, "GEN0305"),
        ({"steps": {}}, "GEN0303"),
        ({"more": 1}, "GEN0303"),
        ({"requires": [1]}, "GEN0303"),
        ({"plan_digest": "sha256:" + "g" * 64}, "GEN0303"),
    ],
)
def test_headers_and_schema(change: dict[str, Any], code: str) -> None:
    assert codes(json.dumps(data() | change)) == {code}


def test_a_later_minor_version_that_needs_no_later_reader_is_read() -> None:
    plan = data() | {"format_version": "1.7"}
    plan["advisory"]["invented_later"] = {"anything": [1, {"x": None}]}
    assert codes(sealed(plan)) == set()


def test_every_place_against_the_schema_is_named() -> None:
    plan = data()
    plan["steps"][0]["kind"] = "jump"
    plan["values"]["slice"]["bytes"] = 7
    with pytest.raises(GenieErrors) as caught:
        read_plan(json.dumps(plan))
    places = {str(e.place) for e in caught.value.errors}
    assert places == {"steps[0]", "values.slice.bytes"}


def test_a_long_name_does_not_make_a_long_error() -> None:
    plan = data()
    plan["values"]["n" * 100_000] = 3
    with pytest.raises(GenieError) as caught:
        read_plan(json.dumps(plan))
    assert len(str(caught.value)) < 20_000
