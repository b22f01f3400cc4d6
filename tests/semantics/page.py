"""The page that `make semantics` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from tests.semantics.corpus import ENTRIES, KINDS
from tests.semantics.scoring import NEAR, Score, calibration_error, reliability

HEAD = f"""\
# How well the semantics are known

Written by `make semantics`; not edited by hand. [semantics.md](semantics.md) says what is measured
here and how the patterns work.

- Every model of the corpus (`tests/semantics/corpus`) is exported, its names are replaced by random
  ones, and the analysis sees only that graph, never a spec.
- Labels come from the documentation cited beside each model. Families were drawn into two halves by
  hash, and the draw was committed, before the first pattern was written. Patterns and the
  confidence curve were made on the training families alone.
- *kind*: the workload is right. *phase*: prefill, decode or forward is right. *labels*: share of
  the calls that the documentation gives a role whose role is right. *boundaries*: F1 of the places
  where one region ends and the next begins, right when at most {NEAR} labelled call away. Both are
  means over the models that have labels. *ECE*: expected calibration error in ten bins.
- *seconds* are the analysis's own, on top of the export: median and worst.
"""


def page(scores: Sequence[Score], out: Collection[str], missing: Sequence[str]) -> str:
    """The page's text."""
    return "\n".join(_lines(scores, out, missing)) + "\n"


def _lines(scores: Sequence[Score], out: Collection[str], missing: Sequence[str]) -> Iterator[str]:
    held = [s for s in scores if s.name in out]
    train = [s for s in scores if s.name not in out]
    yield HEAD
    yield f"{len(scores)} models of {len({ENTRIES[s.name].family for s in scores})} families:" + (
        " " + ", ".join(f"{n} {source}" for source, n in _sources(scores)) + "."
    )
    if missing:
        yield f"Left out, because their packages were not installed: {', '.join(missing)}."
    yield ""
    yield "| families | models | kind | phase | labels | boundaries | ECE | seconds |"
    yield "|---|---|---|---|---|---|---|---|"
    for title, rows in (("held out", held), ("training", train)):
        yield f"| {title} | " + " | ".join(_figures(rows)) + " |"
    yield ""
    yield from _confusion(held)
    yield from _calibration(held, train)
    yield from _by_kind(held)
    yield from _models("Held-out models", held)
    yield from _models("Training models", train)


def _sources(scores: Sequence[Score]) -> list[tuple[str, int]]:
    return sorted(Counter(ENTRIES[s.name].source for s in scores).items())


def _figures(rows: Sequence[Score]) -> list[str]:
    if not rows:
        return ["0", *["–"] * 6]
    labelled = [s for s in rows if s.calls]
    edged = [s for s in labelled if s.wanted or s.drawn]
    seconds = sorted(s.seconds for s in rows)
    return [
        str(len(rows)),
        _percent(sum(s.kind == s.found for s in rows) / len(rows)),
        _percent(sum(s.phase for s in rows) / len(rows)),
        _percent(sum(s.label_accuracy for s in labelled) / max(1, len(labelled))),
        _percent(sum(s.boundary_f1 for s in edged) / max(1, len(edged))),
        f"{calibration_error(rows):.3f}",
        f"{seconds[len(seconds) // 2]:.2f}, {seconds[-1]:.2f}",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _confusion(rows: Sequence[Score]) -> Iterator[str]:
    yield "## Confusion, held-out families"
    yield ""
    yield "Rows are what the documentation says, columns what was found."
    yield ""
    yield "| | " + " | ".join(KINDS) + " |"
    yield "|---|" + "---|" * len(KINDS)
    counts = Counter((s.kind, s.found) for s in rows)
    for kind in KINDS:
        yield f"| {kind} | " + " | ".join(str(counts[kind, k] or "") for k in KINDS) + " |"
    yield ""


def _calibration(held: Sequence[Score], train: Sequence[Score]) -> Iterator[str]:
    yield "## Calibration"
    yield ""
    yield "Of each bin of confidence: its models, their mean confidence, the share that was right."
    yield ""
    yield "| families | models | confidence | right |"
    yield "|---|---|---|---|"
    for title, rows in (("held out", held), ("training", train)):
        for sure, right, count in reliability(rows):
            yield f"| {title} | {count} | {sure:.3f} | {right:.3f} |"
    yield ""


def _by_kind(rows: Sequence[Score]) -> Iterator[str]:
    yield "## By kind, held-out families"
    yield ""
    yield "| kind | models | kind right | phase | labels | boundaries | ECE | seconds |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind in KINDS:
        own = [s for s in rows if s.kind == kind]
        yield f"| {kind} | " + " | ".join(_figures(own)) + " |"
    yield ""


def _models(title: str, rows: Sequence[Score]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "| model | source | family | kind | found | confidence | labels | boundaries |"
    yield "|---|---|---|---|---|---|---|---|"
    for s in sorted(rows, key=lambda s: (KINDS.index(s.kind), s.name)):
        entry = ENTRIES[s.name]
        found = s.found if s.found == s.kind else f"**{s.found}**"
        labels = f"{_percent(s.label_accuracy)} of {s.calls}" if s.calls else ""
        edges = f"{s.boundary_f1:.2f}" if s.calls and (s.wanted or s.drawn) else ""
        yield (
            f"| {s.name} | {entry.source} | {entry.family} | {s.kind} | {found}"
            f" | {s.confidence:.3f} | {labels} | {edges} |"
        )
    yield ""
