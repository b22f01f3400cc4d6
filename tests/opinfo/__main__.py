"""`make opinfo`: run the sweep, print the shares, and write docs/coverage.md when asked.

python -m tests.opinfo [--path plans] [--dtype float32] [--only REGEX] [--write] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from tests.opinfo.report import PAGE, page, share, summary
from tests.opinfo.sweep import DTYPES, PATHS, Outcome, operators, processes, sweep


def main() -> int:
    """Run what the arguments ask for; 0 even where operators fail: the figures say so."""
    parser = argparse.ArgumentParser(prog="python -m tests.opinfo", description=__doc__)
    parser.add_argument("--path", action="append", choices=list(PATHS), help="default: every path")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: all")
    parser.add_argument("--only", default="", help="operators that match this expression")
    parser.add_argument("--workers", type=int, default=processes())
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    given = parser.parse_args()
    paths, dtypes = given.path or list(PATHS), given.dtype or list(DTYPES)
    start = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in sweep(operators(given.only), dtypes, paths, given.workers):
        outcomes.append(outcome)
        if outcome.usable and not outcome.holds:
            print(f"{outcome.path} {outcome.dtype} {outcome.op}: {outcome.reason}", file=sys.stderr)
    outcomes.sort(key=lambda o: (o.path, o.dtype, o.op))
    for path in paths:
        print(share(outcomes, path))
    for line in summary(outcomes):
        print(line)
    print(f"in {time.monotonic() - start:.0f} s", file=sys.stderr)
    if given.json:
        rows = [dataclasses.asdict(o) for o in outcomes]
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if given.write:
        PAGE.write_text(page(outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
