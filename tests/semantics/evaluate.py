"""Measure the semantics on the corpus and write docs/semantics-evaluation.md (`make semantics`).

Options: `--write` rewrites the page, `--calibrate` fits the confidence curve on the training
families first, `--only NAME…` evaluates some and prints.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from pathlib import Path

from genie.semantics import calibration
from genie.semantics.annotate import Analysis, analyze
from tests.semantics.captured import Captured, capture_entry
from tests.semantics.corpus import ENTRIES, MISSING, held_out
from tests.semantics.page import page
from tests.semantics.scoring import Score, score

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "semantics-evaluation.md"
CURVE = Path(calibration.__file__)


def main(arguments: list[str]) -> int:
    """Evaluate; 1 when a model of the corpus could not be captured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args(arguments)
    logging.getLogger("genie.semantics").setLevel(logging.ERROR)
    if MISSING:
        print(f"not installed, left out: {', '.join(MISSING)}", file=sys.stderr)
    out = held_out(ENTRIES)
    scores: list[Score] = []
    samples: list[tuple[float, bool]] = []
    failed = []
    for name in options.only or ENTRIES:
        try:
            found = capture_entry(ENTRIES[name])
        except Exception as error:
            failed.append(name)
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            continue
        made, seconds = measured(found)
        scores.append(score(found, made, seconds))
        if name not in out:
            samples += answers(found, made)
        print(line(scores[-1]), flush=True)
    if options.calibrate:
        slope, offset = fitted(samples)
        CURVE.write_text(curve_text(slope, offset), encoding="utf-8")
        print(f"wrote {CURVE}: run again to measure with it")
    elif options.write:
        PAGE.write_text(page(scores, out, MISSING), encoding="utf-8")
        print(f"wrote {PAGE}")
    return int(bool(failed))


def measured(found: Captured) -> tuple[Analysis, float]:
    """The analysis, and its seconds on top of the export."""
    start = time.perf_counter()
    made = analyze(found.graph)
    return made, time.perf_counter() - start


def line(s: Score) -> str:
    """One model's result."""
    right = "ok " if s.kind == s.found else "BAD"
    return (
        f"{right} {s.name}: {s.kind} -> {s.found} {s.confidence:.3f}, labels"
        f" {s.label_accuracy:.3f} of {s.calls}, boundaries {s.boundary_f1:.3f}, {s.seconds:.3f} s"
    )


def answers(found: Captured, made: Analysis) -> list[tuple[float, bool]]:
    """Every pattern's score, and whether its kind was right."""
    matches = [m for _, m in made.decision.others]
    if made.decision.match is not None:
        matches.append(made.decision.match)
    return [(raw(m.confidence), m.kind == found.entry.kind) for m in matches]


def raw(confidence: float) -> float:
    """The score that has this confidence on the curve in use."""
    p = min(max(confidence, 0.0005), 0.9995)
    return (math.log(p / (1 - p)) - calibration.OFFSET) / calibration.SLOPE


def fitted(samples: list[tuple[float, bool]]) -> tuple[float, float]:
    """Slope and offset of the logistic curve, as Platt 1999 fits it, with his smoothed targets."""
    right = sum(good for _, good in samples)
    high, low = (right + 1) / (right + 2), 1 / (len(samples) - right + 2)
    slope, offset = 1.0, 0.0
    for _ in range(200):
        g0 = g1 = h00 = h01 = h11 = 0.0
        for x, good in samples:
            p = 1 / (1 + math.exp(-(slope * x + offset)))
            error, weight = p - (high if good else low), p * (1 - p)
            g0, g1 = g0 + error * x, g1 + error
            h00, h01, h11 = h00 + weight * x * x, h01 + weight * x, h11 + weight
        h00, h11 = h00 + 1e-9, h11 + 1e-9
        determinant = h00 * h11 - h01 * h01
        step0 = (h11 * g0 - h01 * g1) / determinant
        step1 = (h00 * g1 - h01 * g0) / determinant
        size = max(1.0, abs(step0) / 5, abs(step1) / 5)
        slope, offset = slope - step0 / size, offset - step1 / size
        if max(abs(step0), abs(step1)) < 1e-6:
            break
    return slope, offset


def curve_text(slope: float, offset: float) -> str:
    """The module that keeps the curve."""
    return (
        '"""The curve from a pattern\'s score to its confidence. '
        'Written by `make semantics`, not by hand."""\n\n'
        f"SLOPE = {slope:.3f}\nOFFSET = {offset:.3f}\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
