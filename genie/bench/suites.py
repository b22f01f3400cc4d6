"""The suites by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from genie.bench.report import Report, Row


class Unavailable(Exception):
    """A case cannot be measured here; the text says why."""


def _startup(quick: bool) -> list[Row]:
    from genie.bench.startup import startup

    return startup(quick)


def _compile(quick: bool) -> list[Row]:
    from genie.bench.compiling import compiling

    return compiling(quick)


def _execute(quick: bool) -> list[Row]:
    from genie.bench.calling import calling
    from genie.bench.executing import executing

    return [*executing(quick), *calling(quick)]


SUITES: dict[str, tuple[str, Callable[[bool], list[Row]]]] = {
    "startup": ("how fast commands and the daemon answer, and what the daemon holds", _startup),
    "compile": ("how long compiling takes, and whether its result is always the same", _compile),
    "execute": (
        "what a plan costs beside the same model run eagerly, and what a request to a daemon costs",
        _execute,
    ),
}
"""Name → (one line of help, the suite)."""


def run_suites(
    names: Sequence[str], quick: bool, progress: Callable[[str], None] = lambda name: None
) -> Report:
    """Run suites one after the other; `quick` takes fewer samples."""
    rows: list[Row] = []
    left_out: list[tuple[str, str]] = []
    for name in names:
        progress(name)
        try:
            rows += SUITES[name][1](quick)
        except Unavailable as reason:
            left_out.append((name, str(reason)))
    return Report(tuple(rows), tuple(left_out))
