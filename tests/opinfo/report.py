"""The sweep's figures in words, and the page docs/coverage.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from tests.opinfo.kernels import KERNELS
from tests.opinfo.sweep import Outcome

PAGE = Path("docs/coverage.md")

HEAD = """\
# Operator coverage

Made by `make opinfo ARGS=--write`; do not edit it by hand.

What it measures: every entry of PyTorch's own operator test data (`op_db` of torch {torch}) that
runs eagerly on CPU, with its first three samples, forward. Each sample goes through the whole path
and must equal eager within 1e-5 (1.6e-2 for bfloat16; integers and booleans exactly). An entry
counts only when all its samples hold. The float32 pass takes an operator's first dtype where it
has no float32; the other passes take the operators that have that dtype.

Where eager determines the bits, they must be eager's (any NaN for a NaN; 0.0 is not -0.0), or the
entry fails. Eager determines them when a second run on fresh copies of the inputs, laid out alike,
with the same seed and the same number of threads, gives them again, and none of the operators that
it calls has torch's tag `nondeterministic_bitwise`. Entries that may differ by the tolerance are
listed all the same, with the reason; a test demands that those whose bits are equal leave the list.
Of `empty` and its like there is nothing to compare but shapes and dtypes.
"""

HOST = """
On the lazy device every result is computed by the device's runtime before it is looked at. An entry
counts as *with the host's help* when at least one operator of its samples was left to the host
(`host_fallbacks`): the device did not run that one. *Nothing to run* are entries in which no graph
ran at all: their results are the inputs themselves, or were drawn or made by the host.
"""


def share(outcomes: Sequence[Outcome], path: str) -> str:
    """The line of a path's float32 pass: `through plans: 680 of 691 (98.4 %)`."""
    return f"through {path}: {_ratio(outcomes, path, 'float32')}"


def _ratio(outcomes: Sequence[Outcome], path: str, dtype: str) -> str:
    usable = [o for o in outcomes if o.path == path and o.dtype == dtype and o.usable]
    holding = sum(o.holds for o in usable)
    percent = 100 * holding / len(usable) if usable else 0.0
    return f"{holding} of {len(usable)} ({percent:.1f} %)"


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each further dtype of each path."""
    pairs = sorted({(o.path, o.dtype) for o in outcomes if o.dtype != "float32"})
    return [f"{dtype} via {path}: {_ratio(outcomes, path, dtype)}" for path, dtype in pairs]


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page."""
    parts = [HEAD.format(torch=torch.__version__.split("+")[0])]
    for path in sorted({o.path for o in outcomes}):
        dtypes = sorted({o.dtype for o in outcomes if o.path == path}, key=_dtype_order)
        parts.append(f"\n## Through {path}\n")
        parts.append(_figures([o for o in outcomes if o.path == path], dtypes))
        for dtype in dtypes:
            rows = [o for o in outcomes if (o.path, o.dtype) == (path, dtype)]
            parts.append(_table(f"What fails in {dtype}", (o for o in rows if _fails(o))))
        parts.append(_inexact(path, [o for o in outcomes if o.path == path]))
    unusable = {o.op: o for o in outcomes if o.dtype == "float32" and not o.usable}
    parts.append(_table("Left out: eager cannot run them on CPU", unusable.values(), level="##"))
    return "".join(parts)


def _figures(rows: Sequence[Outcome], dtypes: Sequence[str]) -> str:
    """The table of a path: a line for each pass."""
    hosted = any(o.on_host for o in rows)
    head = ["pass", "holds", "with eager's bits", "within the tolerance", "bits not determined"]
    head += ["with the host's help", "nothing to run"] if hosted else []
    lines = [head, ["---"] * len(head)]
    for dtype in dtypes:
        held = [o for o in rows if o.dtype == dtype and o.holds]
        line = [dtype, _ratio(rows, rows[0].path, dtype)]
        line += [str(sum(o.bits == kind for o in held)) for kind in ("equal", "close", "free")]
        if hosted:
            line.append(str(sum(o.on_host > 0 for o in held)))
            line.append(str(sum(o.graphs == 0 for o in held)))
        lines.append(line)
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    if not hosted:
        return "\n" + table
    helped = sorted({f"`{o.op}`" for o in rows if o.holds and o.on_host})
    return f"{HOST}\n{table}\nWith the host's help in some pass: {', '.join(helped)}.\n"


def _inexact(path: str, rows: Sequence[Outcome]) -> str:
    """The entries that are within the tolerance alone, with their reasons."""
    close = [o for o in rows if o.bits == "close"]
    if not close:
        return "\n### What has not eager's bits\n\nNothing.\n"
    lines = [
        f"| `{o.op}` | {o.dtype} | {o.gap} | {KERNELS[path][o.dtype][o.op]} |\n" for o in close
    ]
    head = "| operator | pass | how | why |\n|---|---|---|---|\n"
    return "\n### What has not eager's bits\n\n" + head + "".join(lines)


def _fails(outcome: Outcome) -> bool:
    return outcome.usable and not outcome.holds


def _dtype_order(dtype: str) -> tuple[bool, str]:
    return dtype != "float32", dtype


def _table(title: str, outcomes: Iterable[Outcome], level: str = "###") -> str:
    rows = sorted(outcomes, key=lambda o: o.op)
    head = f"\n{level} {title}\n\n"
    if not rows:
        return head + "Nothing.\n"
    lines = [f"| `{o.op}` | {plain(o.reason or '')} |\n" for o in rows]
    return head + "| operator | reason |\n|---|---|\n" + "".join(lines)


def plain(reason: str) -> str:
    """A reason on one line of a table, without what changes from run to run."""
    text = re.sub(r"0x[0-9a-f]+|/[\w./-]+/", "…", " ".join(reason.split()))
    text = text.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= 240 else text[:240] + "…"
