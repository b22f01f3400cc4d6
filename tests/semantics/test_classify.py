"""The kind of a workload, from the structure of real captured graphs with scrambled names."""

from __future__ import annotations

import pytest

from genie.semantics import classify
from tests.semantics.captured import capture_entry
from tests.semantics.corpus import ENTRIES

# One of each kind, and the cheapest to export.
CHEAP = (
    "gpt2",
    "cached_decode",
    "lenet",
    "vit",
    "audio_visual",
    "dlrm",
    "wav2vec2",
    "bert",
    "tabular_mlp",
    "temporal_convolution",
)


@pytest.mark.parametrize("name", CHEAP)
def test_the_kind_is_known_whatever_the_names(name: str) -> None:
    found = classify(capture_entry(ENTRIES[name]).graph)
    assert found.kind == ENTRIES[name].kind
    assert found.confidence >= 0.8
    assert found.evidence or found.kind == "generic"
