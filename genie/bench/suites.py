"""The suites by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from genie.bench.report import LeftOut, Report, Row


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


def _capture(quick: bool) -> list[Row]:
    from genie.bench.capturing import capturing

    return capturing(quick)


def _memory(quick: bool) -> list[Row]:
    from genie.bench.memory import memory

    return memory(quick)


def _transport(quick: bool) -> Iterable[Row | LeftOut]:
    from genie.bench.transport._suite import transport

    return transport(quick)


def _semantics(quick: bool) -> Iterable[Row | LeftOut]:
    from genie.bench.semantics._suite import semantics

    return semantics(quick)


SUITES: dict[str, tuple[str, Callable[[bool], Iterable[Row | LeftOut]]]] = {
    "startup": ("how fast commands and the daemon answer, and what the daemon holds", _startup),
    "compile": ("how long compiling takes, and whether its result is always the same", _compile),
    "execute": (
        "what a plan costs beside the same model run eagerly, and what a request to a daemon costs",
        _execute,
    ),
    "capture": ("what recording eager programs costs, and exporting them", _capture),
    "memory": ("what nearly full pools lose to fragmentation, and what requests cost", _memory),
    "transport": ("every path of the data plane beside what else moves bytes", _transport),
    "semantics": (
        "what knowing a model saves, beside remoting that knows nothing",
        _semantics,
    ),
}
"""Name → (one line of help, the suite)."""


def run_suites(
    names: Sequence[str], quick: bool, progress: Callable[[str], None] = lambda name: None
) -> Report:
    """Run suites one after the other; `quick` takes fewer samples."""
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for name in names:
        progress(name)
        try:
            for found in SUITES[name][1](quick):
                if isinstance(found, Row):
                    rows.append(found)
                else:
                    left_out.append(found)
        except Unavailable as reason:
            left_out.append(LeftOut(name, str(reason)))
    return Report(tuple(rows), tuple(left_out))
