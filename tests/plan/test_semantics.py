"""`plan show --semantics` of the examples, and of plans that say odd things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from genie.plan.show import load
from genie.plan.show_semantics import semantics_dot, semantics_text
from genie.testing.snapshots import golden_files
from tests.plan.support import GOLDEN, data_of

SHOWN = ("digits", "resnet18", "vit", "bert", "clip", "dlrm", "gpt2-tiny")


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_golden(name: str, snapshot: SnapshotAssertion) -> None:
    said = semantics_text(load(GOLDEN / f"{name}.plan.json"))
    assert said == snapshot.use_extension(golden_files(GOLDEN, "semantics.txt"))(name=name)


def test_a_language_model_shows_its_phases_and_its_cache() -> None:
    said = semantics_text(load(GOLDEN / "gpt2-tiny.plan.json"))
    assert "prefill   entry point prefill" in said
    assert "decode    entry point decode" in said
    assert "KV cache" in said
    assert "(kv cache) -> decoder" in said


def test_the_drawing_has_a_node_for_each_component_and_an_edge_for_each_flow() -> None:
    plan = load(GOLDEN / "clip.plan.json")
    told = plan.summary.semantics
    drawn = semantics_dot(plan)
    assert drawn.startswith("digraph semantics {")
    assert drawn.count(" -> ") == len(told["flows"])
    for part in told["components"]:
        assert f'"forward/{part["name"]}" [label=' in drawn
    assert drawn.count("{") == drawn.count("}")


def test_names_in_a_drawing_end_no_string(tmp_path: Path) -> None:
    data = data_of("digits")
    part = {"entrypoint": 'a"];b', "name": 'x\\" -> y; "', "ops": 1}
    data["advisory"]["semantics"] = {"components": [part, 7], "flows": [{"from": None}, []]}
    path = tmp_path / "odd.plan.json"
    path.write_text(json.dumps(data))
    drawn = semantics_dot(load(path))
    assert 'label="a\\"];b";' in drawn
    assert '\\\\\\" -> y; \\"' in drawn


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"kind": 3, "evidence": "x", "entrypoints": [1], "components": {}, "regions": [None]},
        {
            "kind": "llm",
            "flows": [{"bytes": "9" * 9000}, {"bytes": "a*("}],
            "nearest": {"missing": 1},
        },
        {"components": [{"ops": -1, "weight_bytes": "many", "work": {}}]},
        {"entrypoints": {"forward": {"residency": {"weight": {"values": True, "bytes": -1}}}}},
    ],
)
def test_odd_semantics_are_shown_as_far_as_they_can_be(told: object, tmp_path: Path) -> None:
    data = data_of("digits")
    data["advisory"]["semantics"] = told
    path = tmp_path / "odd.plan.json"
    path.write_text(json.dumps(data))
    plan = load(path)
    assert semantics_text(plan).endswith("\n")
    assert semantics_dot(plan).endswith("}\n")
