"""docs/compatibility.md from the outcomes of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.compat.attempt import Outcome

PAGE = Path(__file__).resolve().parents[2] / "docs/compatibility.md"
GROUPS = ("text", "vision", "audio", "multi-modal", "time series")

HEAD = """\
# What can be compiled

Written by `make compatibility`; not edited by hand. Each row went through the whole compiler: built
with random weights, captured, written as a plan, parsed strictly, verified, and executed by the
runtime; then its outputs were compared with eager execution.

- *same bits*: every output has eager's bits. *1e-5*: within 1e-5, absolute plus relative.
- *batch*: *any* is one plan for every batch size, tried at 1 and 3; *fixed* is one for a batch of
  2.
- Families are those of transformers {transformers}, one a folder of its models, each with a small
  configuration that `tests/compat/small.py` derives from the meaning of its fields.
"""


def render(found: Iterable[Outcome]) -> str:
    """The page's text: the same outcomes give the same bytes."""
    import transformers

    rows = sorted(found, key=lambda o: o.name)
    programs = [o for o in rows if o.group == "program"]
    families = [o for o in rows if o.group != "program"]
    ran = [o for o in families if o.stage not in ("", "builds")]
    works = [o for o in ran if o.works]
    lines = [HEAD.format(transformers=transformers.__version__)]
    lines += _summary(ran, works)
    lines += ["## Programs of torch", "", "| program | result | |", "|---|---|---|"]
    lines += [_row(o) for o in programs]
    for group in GROUPS:
        members = [o for o in works if o.group == group]
        lines += ["", f"## {group.capitalize()}", "", "| family | inputs | batch | equal |"]
        lines += ["|---|---|---|---|"]
        lines += [f"| {o.name} | {', '.join(o.inputs)} | {o.batch} | {o.match} |" for o in members]
    failed = [o for o in ran if not o.works]
    lines += ["", "## What fails", "", "| family | reaches | code | reason |", "|---|---|---|---|"]
    lines += [f"| {o.name} | {o.stage} | {o.code} | {_cell(o.reason)} |" for o in failed]
    lines += _untried([o for o in families if o.stage in ("", "builds")])
    return "\n".join(lines) + "\n"


def _summary(ran: Sequence[Outcome], works: Sequence[Outcome]) -> list[str]:
    lines = ["| group | families that run eagerly | work | any batch | same bits |"]
    lines += ["|---|---|---|---|---|"]
    for group in (*GROUPS, ""):
        tried = [o for o in ran if o.group == group or not group]
        good = [o for o in works if o.group == group or not group]
        anyhow = sum(o.batch == "any" for o in good)
        bits = sum(o.match == "same bits" for o in good)
        lines.append(f"| {group or 'all'} | {len(tried)} | {len(good)} | {anyhow} | {bits} |")
    codes = Counter(o.code or "not equal" for o in ran if not o.works)
    if codes:
        told = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
        lines += ["", f"Failures by code: {told}."]
    return [*lines, ""]


def _row(outcome: Outcome) -> str:
    if outcome.works:
        return f"| {outcome.name} | works, {outcome.match} | |"
    return f"| {outcome.name} | {outcome.code or 'fails'} | {_cell(outcome.reason)} |"


def _untried(rows: Sequence[Outcome]) -> list[str]:
    lines = [
        "",
        "## Not tried",
        "",
        "These did not get as far as running eagerly under the rules, which says nothing of plans:",
        "the small configuration does not fit, a package is missing, or no usual combination of",
        "inputs fits the forward.",
        "",
        "| family | why |",
        "|---|---|",
    ]
    return lines + [f"| {o.name} | {_cell(o.reason)} |" for o in rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
