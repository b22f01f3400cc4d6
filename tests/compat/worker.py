"""A process that attempts cases: names in on standard input, outcomes out, one JSON line each."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback

from tests.compat.attempt import Outcome, attempt_family, session


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what models print goes to standard error
    with session() as runtime:
        for line in sys.stdin:
            kind, _, name = line.strip().partition(":")
            try:
                if kind == "family":
                    outcome = attempt_family(name, runtime)
                else:
                    from tests.compat.programs import attempt_program

                    outcome = attempt_program(name, runtime)
            except Exception as error:
                traceback.print_exc()
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
                outcome = Outcome(name, "", "runs", code="bug", reason=text)
            answers.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
