"""The sweep: every operator's samples through every path, over processes, as outcomes.

A path is a context manager with a `name` and `run(case) -> leaves`. `PATHS` lists them; samples,
eager's results, the comparison and the report are common to all.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Protocol, Self

import torch

from genie_schemas.errors import GenieError, GenieErrors
from tests.opinfo.comparing import different, inexact, undefined
from tests.opinfo.kernels import listed
from tests.opinfo.samples import SAMPLES, Case, cases, database, dtype_of, name_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int64": torch.int64}

PATHS = {"plans": "tests.opinfo.plans:Plans", "lazy device": "tests.opinfo.lazy:Lazy"}
"""Name, as the report prints it → module and class of the path; imported where it is used."""

CASE_SECONDS = 120
_CHUNK = 8


class Path(Protocol):
    """One way from a case to its results."""

    @property
    def counts(self) -> tuple[int, int]:
        """(operators left to the program's own host, graphs that the runtime ran), so far."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...

    def run(self, case: Case) -> list[Any]:
        """The results as leaves, None left out; raises GenieError when the path refuses."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of one operator in one dtype on one path.

    `reason` is None when every sample holds. `bits` says of an entry that holds whether its bits
    are eager's: "equal", "close" for one that `KERNELS` lists, and "free" where eager promises no
    bits or there are none to compare; `gap` is how those that are close differ. `on_host` operators
    were left to the host, and `graphs` ran.
    """

    op: str
    dtype: str
    path: str
    reason: str | None
    usable: bool = True
    samples: int = 0
    seconds: float = 0.0
    bits: str = ""
    gap: str = ""
    on_host: int = 0
    graphs: int = 0

    @property
    def holds(self) -> bool:
        """Whether every sample holds."""
        return self.usable and self.reason is None


def make(path: str) -> Path:
    """The path of this name."""
    module, _, name = PATHS[path].partition(":")
    made: Path = getattr(import_module(module), name)()
    return made


def attempt(info: Any, dtype: str, path: str, runner: Path) -> Outcome:
    """One operator through one path: its samples in order, up to the first that fails."""
    op, start, count = name_of(info), time.perf_counter(), 0
    actual = dtype_of(info, DTYPES[dtype])
    gaps: list[str | None] = []  # of the samples whose bits eager determines
    hosted, ran = runner.counts

    def outcome(reason: str | None, usable: bool = True) -> Outcome:
        seconds = round(time.perf_counter() - start, 3)
        made = Outcome(op, dtype, path, reason, usable, count, seconds)
        if not made.holds:
            return made
        gap = next((gap for gap in gaps if gap), "")
        bits = "close" if gap else "equal" if gaps else "free"
        on_host, graphs = runner.counts
        return replace(made, bits=bits, gap=gap, on_host=on_host - hosted, graphs=graphs - ran)

    if actual is None:
        return outcome("no such dtype", usable=False)
    try:
        made = list(cases(info, actual))
        for case in made:
            assert isinstance(case.expected, list)
    except Exception as error:
        return outcome(f"eager: {type(error).__name__}: {error}"[:200], usable=False)
    if not made:
        return outcome("torch gives no sample", usable=False)
    for case in made:
        found = _one(case, runner)
        reason = found if isinstance(found, str) else different(case.op, found, case.expected)
        if reason is None and not undefined(op) and case.deterministic:
            gaps.append(inexact(found, case.expected))
            if not listed(path, dtype, op):
                reason = gaps[-1]
        if reason is not None:
            return outcome(f"sample {case.index}: {reason}")
        count += 1
    return outcome(None)


def _one(case: Case, runner: Path) -> list[Any] | str:
    """The path's results, or why there are none."""
    try:
        with _limited(CASE_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return runner.run(case)
    except GenieErrors as errors:
        return _words(errors.errors[0])
    except GenieError as error:
        return _words(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}".strip()


def _words(error: GenieError) -> str:
    cause = f" ({error.cause})" if error.cause else ""
    return f"{error.code} {error.message}{cause}"


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class _Worker:
    """A process's paths and operators, made at first use and kept until it ends."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.paths: dict[str, Path] = {}
        logging.disable(logging.CRITICAL)
        self.infos = {name_of(info): info for info in database()}

    def path(self, name: str) -> Path:
        if name not in self.paths:
            self.paths[name] = self.stack.enter_context(make(name))
        return self.paths[name]


_worker: _Worker | None = None


def _work(ops: Sequence[str], dtype: str, path: str) -> list[Outcome]:
    global _worker  # one a process: a session of the embedded runtime stays open in it
    if _worker is None:
        _worker = _Worker()
    return [attempt(_worker.infos[op], dtype, path, _worker.path(path)) for op in ops]


def sweep(
    ops: Sequence[str], dtypes: Sequence[str], paths: Sequence[str], workers: int
) -> Iterator[Outcome]:
    """Outcomes as they come; a process that dies ends the sweep with an error."""
    chunks = [ops[i : i + _CHUNK] for i in range(0, len(ops), _CHUNK)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [
            pool.submit(_work, chunk, dtype, path)
            for path in paths
            for dtype in dtypes
            for chunk in chunks
        ]
        for future in as_completed(futures):
            yield from future.result()


def operators(pattern: str = "") -> list[str]:
    """Names of the operators, those that match a regular expression if one is given."""
    import re

    found = dict.fromkeys(name_of(info) for info in database())
    return [op for op in found if re.search(pattern, op)]


def processes() -> int:
    """How many run side by side."""
    return max(1, min(4, len(os.sched_getaffinity(0))))


__all__ = ["DTYPES", "PATHS", "SAMPLES", "Outcome", "Path", "attempt", "make", "operators", "sweep"]
