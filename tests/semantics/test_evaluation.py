"""The evaluation on a few cheap models, and its arithmetic."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from genie.semantics.match import calibrated
from tests.semantics.captured import capture_entry
from tests.semantics.corpus import ENTRIES, held_out
from tests.semantics.evaluate import PAGE, answers, fitted, measured, raw
from tests.semantics.page import page
from tests.semantics.scoring import Score, calibration_error, score

CHEAP = ("bottleneck_resnet", "dlrm", "tied_rotary_lm", "audio_visual", "autoencoder", "lenet")


def test_cheap_models_are_known_with_their_regions() -> None:
    scores = []
    for name in CHEAP:
        captured = capture_entry(ENTRIES[name])
        made, seconds = measured(captured)
        scores.append(score(captured, made, seconds))
        assert answers(captured, made)
    assert all(s.kind == s.found and s.phase for s in scores)
    labelled = [s for s in scores if s.calls]
    assert sum(s.label_accuracy for s in labelled) / len(labelled) >= 0.9
    assert sum(s.boundary_f1 for s in labelled) / len(labelled) >= 0.9
    text = page(scores, held_out(ENTRIES), [])
    assert all(f"| {name} |" in text for name in CHEAP)


ONE = Score("m", "llm", "llm", 0.8, True, 10, 9, 2, 2, 2, 0.1, 1.0)


def test_a_sure_and_wrong_answer_costs_its_confidence() -> None:
    wrong = dataclasses.replace(ONE, found="vision", confidence=0.9)
    assert calibration_error([wrong]) == pytest.approx(0.9)
    assert calibration_error([ONE]) == pytest.approx(0.2)
    assert calibration_error([]) == 0


def test_boundaries_are_scored_both_ways() -> None:
    assert dataclasses.replace(ONE, wanted=4, drawn=2, hit=2).boundary_f1 == pytest.approx(2 / 3)
    assert ONE.label_accuracy == pytest.approx(0.9)


def test_the_curve_is_the_likeliest_one() -> None:
    draw = random.Random(0)
    samples = [(x, draw.random() < 1 / (1 + 2.718281828 ** -(6 * x - 3)))
               for x in (draw.random() for _ in range(4000))]  # fmt: skip
    slope, offset = fitted(samples)
    assert slope == pytest.approx(6, abs=0.6)
    assert offset == pytest.approx(-3, abs=0.4)
    assert raw(calibrated(0.7)) == pytest.approx(0.7, abs=0.01)


def test_the_page_is_of_this_corpus() -> None:
    text = Path(PAGE).read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in ENTRIES)
