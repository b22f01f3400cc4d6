"""What calls and values are for: phases, residency, criticality, rates, the blueprint."""

from __future__ import annotations

import json
from functools import cache

import pytest

from genie.semantics.annotate import Analysis, analyze
from genie.semantics.blueprint import blueprint
from genie.semantics.export import analysis_dot, analysis_json, analysis_text
from tests.semantics.captured import graph_of, scramble
from tests.semantics.corpus import ENTRIES


@cache
def found(name: str) -> Analysis:
    return analyze(graph_of(ENTRIES[name])[0])


@pytest.mark.parametrize(
    ("name", "phase"),
    [("cached_prefill", "prefill"), ("cached_decode", "decode"), ("cache_handed_over", "decode")],
)
def test_phases_of_a_cached_model(name: str, phase: str) -> None:
    assert found(name).phase == phase
    assert {note.phase for note in found(name).calls} == {phase}


def test_keys_and_values_are_a_cache_and_weights_are_not() -> None:
    values = found("cached_decode").values
    caches = {name for name, note in values.items() if note.residency == "kv_cache"}
    layers = [f"layers.{i}.attention.{part}" for i in range(2) for part in ("keys", "values")]
    assert caches == set(layers)
    assert values["words.weight"].residency == "weight"
    assert values["tokens"].residency == "input"


def test_a_cache_that_is_handed_in_is_one() -> None:
    values = found("cache_handed_over").values
    for name in ("keys0", "values0", "keys1", "values1"):
        assert values[name].residency == "kv_cache"


def test_an_encoder_has_a_phase_of_its_own() -> None:
    notes = found("wave_to_text").calls
    assert {n.phase for n in notes if n.component == "encoder"} == {"encode"}
    assert {n.phase for n in notes if n.component == "decoder"} == {"forward"}


def test_towers_carry_their_modality_and_only_the_longer_one_is_critical() -> None:
    parts = {c.name: c for c in blueprint(found("contrastive_pair")).components}
    assert parts["vision"].modality == "vision"
    assert parts["text"].modality == "text"
    assert parts["fusion"].modality == "vision+text"
    assert max(parts["vision"].criticality, parts["text"].criticality) == 1
    assert min(parts["vision"].criticality, parts["text"].criticality) < 1


def test_flows_say_what_crosses_and_how_often_it_is_read() -> None:
    flows = {(f.source, f.target): f for f in blueprint(found("dlrm")).flows}
    assert flows["(input)", "dense"].bytes == "b*52"
    assert flows["(input)", "dense"].most == 4 * 52
    rows = flows["sparse", "interaction"]
    assert (rows.values, rows.readers) == (6, 6)
    assert sum(f.target == "(output)" for f in flows.values()) == 1


def test_rates_are_bytes_made_for_bytes_taken() -> None:
    notes = found("tabular_mlp").calls
    assert [n.rate for n in notes] == [4.0, 1.0, 0.5, 1.0, 0.031]


def test_names_change_no_note() -> None:
    graph = graph_of(ENTRIES["nano_gpt"])[0]
    assert analyze(scramble(graph, "x")).calls == analyze(graph).calls


def test_text_json_and_drawing_tell_of_every_call_and_component() -> None:
    one = found("cached_decode")
    text, data = analysis_text(one), analysis_json(one)
    assert text.count("critical") == len(one.calls) == len(data["calls"])
    assert json.loads(json.dumps(data)) == data
    assert {v["residency"] for v in data["values"].values()} >= {"kv_cache", "weight", "input"}
    drawn = analysis_dot(one)
    assert all(f'"forward/{c["name"]}"' in drawn for c in data["components"])
