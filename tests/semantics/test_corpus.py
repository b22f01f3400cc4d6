"""The corpus is as large, as varied and as labelled as the evaluation says."""

from __future__ import annotations

from collections import Counter

import pytest

from genie.graph import check
from tests.semantics.captured import capture_entry, graph_of, label_of
from tests.semantics.corpus import ENTRIES, HELD_OUT, KINDS, MISSING, SOURCES, drawn, held_out

FAST = (
    "nano_gpt",
    "bottleneck_resnet",
    "dlrm",
    "contrastive_pair",
    "wave_to_text",
    "temporal_convolution",
)


def test_the_corpus_is_large_and_varied() -> None:
    assert len(ENTRIES) >= 40
    out = held_out(ENTRIES)
    for kind in KINDS:
        sides = Counter(e.name in out for e in ENTRIES.values() if e.kind == kind)
        assert min(sides[True], sides[False]) >= 3, (kind, sides)
    # Those of PyPI are there where `make semantics` ran.
    assert {e.source for e in ENTRIES.values()} >= set(SOURCES) - {"pypi"}


def test_no_family_is_on_both_sides() -> None:
    out = held_out(ENTRIES)
    sides: dict[str, set[bool]] = {}
    for entry in ENTRIES.values():
        sides.setdefault(entry.family, set()).add(entry.name in out)
    assert all(len(found) == 1 for found in sides.values())


@pytest.mark.skipif(bool(MISSING), reason="the packages of corpus/requirements.txt are missing")
def test_the_held_out_families_are_those_that_were_drawn() -> None:
    assert drawn(ENTRIES) == HELD_OUT


def test_every_label_cites_its_documentation() -> None:
    for entry in ENTRIES.values():
        assert any(mark in entry.documented for mark in ("https://", "arXiv:", "doi:")) or any(
            year.isdigit() for year in entry.documented.replace(",", " ").split()
        ), entry.name


@pytest.mark.parametrize("name", FAST)
def test_scrambling_leaves_no_name_and_a_legal_graph(name: str) -> None:
    graph, _ = graph_of(ENTRIES[name])
    found = capture_entry(ENTRIES[name])
    check(found.graph, "capture")
    assert [n.op for n in found.graph.nodes] == [n.op for n in graph.nodes]
    names = {n.module for n in graph.nodes} | set(graph.table) | {c for _, c in graph.modules}
    text = {n.module for n in found.graph.nodes} | set(found.graph.table)
    text |= {c for _, c in found.graph.modules}
    assert not (names & text) - {""}


def test_the_key_with_most_parts_labels_a_call() -> None:
    graph, _ = graph_of(ENTRIES["nano_gpt"])
    regions = {"layers": "stage", "layers.*.mlp": "mlp", "!add": "embedding"}
    labels = [label_of(node, regions) for node in graph.nodes]
    assert ("mlp", "/0") in labels
    assert ("mlp", "/2") in labels
    assert ("stage", "") in labels
    assert ("embedding", "") in labels
    assert None in labels
