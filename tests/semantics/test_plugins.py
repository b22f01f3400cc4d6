"""Patterns from installed packages: the documented one works, and bad ones hurt nobody."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genie.graph.ir import Graph
from genie.semantics import classify
from genie.semantics.annotate import analyze
from genie.semantics.classify import decide
from genie.semantics.match import Facts, Match, Part
from genie.semantics.patterns import BUILT_IN
from genie.semantics.plugins import ask, installed
from genie.semantics.structure import structure_of
from tests.capture.compiling import compile_module, spec_of
from tests.semantics.captured import graph_of
from tests.semantics.corpus import ENTRIES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "semantics.md"


def example() -> str:
    """The documented pattern's source."""
    found = [b for b in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if "class " in b]
    assert len(found) == 1
    return found[0]


class RadialBasisNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres, self.out = nn.Parameter(torch.randn(8, 4)), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.exp(-torch.cdist(x, self.centres)))


NET = spec_of({"x": ("float32", ["b", 4])})


def distribution(folder: Path, name: str, source: str, entry: str) -> None:
    """An installed distribution: a module, and metadata with an entry point."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[genie.patterns]\n{entry}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, as site-packages is."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.fixture(scope="module")
def tabular() -> Graph:
    return graph_of(ENTRIES["tabular_mlp"])[0]


def test_the_documented_pattern_is_short_and_found_when_installed(site: Path) -> None:
    assert len(example().splitlines()) <= 30
    distribution(site, "my_package", example(), "radial-basis = my_package:RadialBasis")
    assert "radial-basis" in [p.name for p in installed()]
    plan = compile_module(RadialBasisNet().eval(), NET).plan
    told = plan.advisory["semantics"]
    assert (told["kind"], told["confidence"], told["by"]) == ("radial-basis", "0.9", "radial-basis")
    assert [c["name"] for c in told["components"]] == ["kernel", "sum"]


def test_without_the_package_the_model_is_generic() -> None:
    told = compile_module(RadialBasisNet().eval(), NET).plan.advisory["semantics"]
    assert told["kind"] == "generic"
    assert told["nearest"]["missing"]


NONSENSE: dict[str, Any] = {
    "no match": "an apple",
    "not a number": Match("apple", float("nan")),
    "too sure": Match("apple", 1.5),
    "a flag": Match("apple", True),
    "text": Match("apple", "0.9"),  # type: ignore[arg-type]
    "a kind of lines": Match("ap\nple", 0.9),
    "no kind": Match(None, 0.9),  # type: ignore[arg-type]
    "calls that are not there": Match("apple", 0.9, [Part("core", (0, 10**9))]),
    "a negative call": Match("apple", 0.9, [Part("core", (-1,))]),
    "no part": Match("apple", 0.9, ["core"]),  # type: ignore[list-item]
    "no parts": Match("apple", 0.9, 7),  # type: ignore[arg-type]
    "a role of lines": Match("apple", 0.9, [Part("a\nb", (0,))]),
    "evidence of numbers": Match("apple", 0.9, (), [1]),  # type: ignore[list-item]
    "phases of numbers": Match("apple", 0.9, phases={"a": 1}),  # type: ignore[dict-item]
    "a component of numbers": Match("apple", 0.9, [Part("a", (0,), 0, 3)]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", sorted(NONSENSE))
def test_nonsense_is_left_out_and_logged(
    case: str, tabular: Graph, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad:
        name = "bad"

        def match(self, facts: Facts) -> Any:
            return NONSENSE[case]

    with caplog.at_level(logging.WARNING, "genie.semantics"):
        found = analyze(tabular, patterns=(*BUILT_IN, Bad()))
    assert found.workload == analyze(tabular, patterns=BUILT_IN).workload
    events = [r for r in caplog.records if getattr(r, "event", "") == "pattern_failed"]
    assert [getattr(r, "pattern", "") for r in events] == ["bad"]


def test_a_plugin_that_raises_or_cannot_be_loaded_does_not_stop_a_compile(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = (
        "class Raises:\n    name = 'raises'\n    def match(self, facts):\n        return 1 / 0\n"
        "class Nameless:\n    def match(self, facts):\n        return None\n"
        "class Mute:\n    name = 'mute'\n"
    )
    entries = "a = bad_package:Raises\nb = bad_package:Missing\nc = bad_package:Nameless\n"
    distribution(site, "bad_package", source, entries + "d = bad_package:Mute\ne = nowhere:X")
    with caplog.at_level(logging.WARNING, "genie.semantics"):
        plan = compile_module(RadialBasisNet().eval(), NET).plan
    assert plan.advisory["semantics"]["kind"] == "generic"
    events = [r for r in caplog.records if getattr(r, "event", "") == "pattern_failed"]
    assert [r.pattern for r in events] == ["b", "c", "d", "e", "raises"]  # type: ignore[attr-defined]
    assert "ZeroDivisionError" in events[-1].getMessage()


class Sure:
    """A pattern that is always equally sure."""

    def __init__(self, name: str, kind: str, calls: int, confidence: float = 0.9) -> None:
        self.name, self.kind, self.calls, self.confidence = name, kind, calls, confidence

    def match(self, facts: Facts) -> Match:
        return Match(self.kind, self.confidence, [Part("core", tuple(range(self.calls)))])


@pytest.mark.parametrize("swapped", [False, True])
def test_of_equally_confident_patterns_the_one_that_explains_more_is_taken(
    swapped: bool, tabular: Graph, caplog: pytest.LogCaptureFixture
) -> None:
    patterns = [Sure("one", "apples", 2), Sure("two", "pears", 4)]
    with caplog.at_level(logging.WARNING, "genie.semantics"):
        found = analyze(tabular, patterns=patterns[::-1] if swapped else patterns)
    assert (found.workload.kind, found.workload.pattern) == ("pears", "two")
    tied = [r for r in caplog.records if getattr(r, "event", "") == "patterns_tied"]
    assert [(r.taken, r.other) for r in tied] == [("two", "one")]  # type: ignore[attr-defined]


def test_of_equal_patterns_the_built_in_comes_first_then_the_name(tabular: Graph) -> None:
    equal = [Sure("b", "pears", 3), Sure("a", "apples", 3)]
    assert analyze(tabular, patterns=equal).workload.kind == "apples"
    equal.append(Sure("vision", "vision", 3))
    assert analyze(tabular, patterns=equal).workload.kind == "vision"


def test_the_spec_wins_over_every_pattern(tabular: Graph) -> None:
    found = analyze(tabular, "llm", patterns=[Sure("sure", "pears", 3, 1.0)])
    assert (found.workload.kind, found.workload.confidence) == ("llm", 1.0)
    assert found.workload.pattern == "spec"
    assert found.phase == "prefill"


def test_below_the_threshold_the_log_says_what_was_nearly_matched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    graph = graph_of(ENTRIES["bert_masked_lm"])[0]
    with caplog.at_level(logging.INFO, "genie.semantics"):
        assert classify(graph).kind == "generic"
    told = [r for r in caplog.records if getattr(r, "event", "") == "generic_workload"]
    assert [r.nearest for r in told] == ["llm"]  # type: ignore[attr-defined]
    assert told[0].missing == ["attention is causal, or reads a cache"]  # type: ignore[attr-defined]


def test_a_built_in_pattern_has_no_more_rights(tabular: Graph) -> None:
    facts = Facts(structure_of(tabular))
    for pattern in BUILT_IN:
        assert ask(pattern, facts) is not None
    assert decide(facts, patterns=()).workload.kind == "generic"
