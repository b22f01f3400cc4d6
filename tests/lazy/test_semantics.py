"""The analysis of compiled models on what the lazy device recorded: the same labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genie.lazy
from genie.semantics.annotate import analyze
from tests.capture.compiling import example, spec_of
from tests.semantics.captured import graph_of
from tests.semantics.corpus import ENTRIES

MODELS = ("bottleneck_resnet", "vgg", "dlrm", "wide_and_deep", "tabular_mlp", "gpt2")


def recorded(name: str) -> dict[str, Any]:
    """What the device says of one forward."""
    module, inputs = ENTRIES[name].build()
    given = example(spec_of(inputs, {"b": (1, 4)}), {"b": 2})
    module = module.to("genie")
    genie.lazy.synchronize()
    with torch.no_grad():
        found = module(**{n: t.to("genie") for n, t in given.items()})
        leaves = found.values() if isinstance(found, dict) else [found]
        assert all(torch.isfinite(t.cpu()).all() for t in leaves)
    return genie.lazy.semantics()


def roles(regions: list[str]) -> list[str]:
    """Roles in the order of execution, neighbours of one region taken together."""
    kept = [r for i, r in enumerate(regions) if i == 0 or regions[i - 1] != r]
    return [r.partition(".")[0] for r in kept]


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_forward_has_the_labels_of_the_exported_one(name: str) -> None:
    told = recorded(name)
    exported = analyze(graph_of(ENTRIES[name])[0])
    assert told["workload"]["kind"] == exported.workload.kind == ENTRIES[name].kind
    assert told["phase"] == exported.phase == ENTRIES[name].phase
    components = dict.fromkeys(note.component for note in exported.calls)
    assert {c["name"] for c in told["components"]} == set(components)
    compute = ("linear", "conv2d", "scaled_dot_product", "embedding", "bmm", "convolution")

    def heavy(op: str) -> bool:
        return any(word in op for word in compute)

    ours = [c["region"] for c in told["calls"] if heavy(c["op"])]
    pairs = zip(exported.graph.nodes, exported.calls, strict=True)
    theirs = [note.region for node, note in pairs if heavy(node.op)]
    assert roles(ours) == roles(theirs)


def test_weights_that_the_device_keeps_are_weights() -> None:
    told = recorded("tabular_mlp")
    residency = told["residency"]
    assert residency["weight"]["values"] == 6
    assert residency["input"]["values"] == 1
