"""`make compatibility`: attempt every case in worker processes, then write docs/compatibility.md.

    python -m tests.compat.sweep [--workers 2] [--check] [NAME…]

With names, only those are attempted and printed; nothing is written. With `--check`, the page is
compared with what was found, and the exit status is 3 when it is stale.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue

from tests.compat.attempt import Outcome
from tests.compat.page import PAGE, render

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds that a case may take; the worker is ended then."""


class Worker:
    """A child process that attempts one case after another."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.compat.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=env,
        )

    def attempt(self, case: str) -> Outcome | None:
        """The outcome, or None when the process died or took too long."""
        stdin, stdout = self.child.stdin, self.child.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(case + "\n")
            stdin.flush()
            if not select.select([stdout], [], [], PATIENCE)[0]:
                return None
            line = stdout.readline()
        except OSError:
            return None
        if not line:
            return None
        data = json.loads(line)
        return Outcome(**{**data, "inputs": tuple(data["inputs"])})

    def end(self) -> None:
        self.child.kill()
        self.child.wait()


def outcomes(cases: Sequence[str], workers: int) -> Iterator[Outcome]:
    """Attempt the cases in `workers` processes; outcomes come as they are ready."""
    todo: Queue[str] = Queue()
    done: Queue[Outcome] = Queue()
    for case in cases:
        todo.put(case)

    def serve() -> None:
        worker = Worker()
        try:
            while True:
                case = todo.get_nowait()
                outcome = worker.attempt(case)
                if outcome is None:
                    worker.end()
                    reason = f"the attempt died or took more than {PATIENCE:.0f} s"
                    outcome = Outcome(case.partition(":")[2], "", "", code="bug", reason=reason)
                    worker = Worker()
                done.put(outcome)
        except Empty:
            pass
        finally:
            worker.end()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for _ in cases:
        yield done.get(timeout=2 * PATIENCE)
    for thread in threads:
        thread.join()


def main() -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    from tests.compat.families import families
    from tests.compat.programs import PROGRAMS

    cases = [f"program:{n}" for n in PROGRAMS] + [f"family:{n}" for n in families()]
    if given.names:
        cases = [case for case in cases if case.partition(":")[2] in given.names]
    start = time.monotonic()
    found = []
    for outcome in outcomes(cases, given.workers):
        found.append(outcome)
        what = f"{outcome.match}, batch {outcome.batch}" if outcome.works else outcome.reason
        reached = "works" if outcome.works else outcome.stage or "not built"
        print(f"{outcome.name:32} {reached:10} {outcome.code:8} {what}", flush=True)
    print(f"{len(found)} cases in {time.monotonic() - start:.0f} s", file=sys.stderr)
    if given.names:
        return 0
    text = render(found)
    if given.check:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 3
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
