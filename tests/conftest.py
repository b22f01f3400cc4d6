"""What holds for every test: property tests without a clock, and markers that ask for a machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from tests.warm import warm, warm_interpreter

__all__ = ["warm", "warm_interpreter"]

# How long an example takes is the machine's business; `timeout` in pyproject.toml ends what hangs.
settings.register_profile("genie", deadline=None)
settings.load_profile("genie")


# A shell starts what runs in the background with interrupts ignored, and every child of a test
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take minutes: test processes that share the work begin with them, or one process goes
# on with the last of them while the others have nothing left to do.
_LONG = (
    "native/test_cpp.py",
    "testing/test_plugin.py",
    "golden/",
    "transport/contract/",
    "runtime/test_faults.py",
    "runtime/test_fabric.py",
    "bench/",
    "lazy/",
    "cli/test_compile_command.py",
)


# Measuring coverage makes torch two thirds slower, and reading generated text three times: these do
# little else. What they run of Genie is measured where each part has tests of its own.
_UNMEASURED = (
    "acceptance/",
    "capture/test_families.py",
    "capture/test_zoo.py",
    "compat/",
    "docs/test_examples.py",
    "examples/",
    "golden/",
    "lazy/test_recorders.py::test_recurrent_layers",
    "lazy/test_recurrent.py",
    "lazy/test_semantics.py::test_a_recorded_forward",
    "lazy/test_training.py",
    "llm/test_equality.py",
    "opinfo/",
    "repo/test_no_pickle.py",
    "runtime/test_fabric.py",
    "schedule/test_random_modules.py",
    "schemas/test_verify_changes.py",
    "semantics/test_corpus.py",
    "spec/test_hostile.py",
    "testing/",
)

# A child imports everything anew, which takes a quarter longer while it is measured. What these
# start is measured when others start it, or is killed in the end, and its figures with it.
_CHILDREN_UNMEASURED = (
    "bench/semantics/",
    "cli/",
    "client/",
    "doctor/",
    "lazy/test_daemon.py",
    "lazy/test_python.py::test_labels",
    "runtime/executors/test_supervisor.py",
    "runtime/test_call_liars.py",
    "runtime/test_calls.py",
    "runtime/test_daemon_access.py",
    "runtime/test_daemon_protocol.py",
    "runtime/test_generate_recovery.py",
    "runtime/test_heartbeat.py",
    "runtime/test_kept.py",
    "runtime/test_lazy_counters.py",
    "runtime/test_sequences.py",
    "runtime/test_upload.py",
)


def _among(item: pytest.Item, parts: Sequence[str]) -> bool:
    return any(item.nodeid.startswith(f"tests/{part}") for part in parts)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; skip what this machine cannot run, with the reason."""
    items.sort(key=lambda item: not _among(item, _LONG))
    missing = {}
    if os.geteuid() != 0:
        missing["root"] = pytest.mark.skip(reason="needs root")
    if not Path("/proc/driver/nvidia/version").exists():
        missing["cuda"] = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if _among(item, _UNMEASURED):
            item.add_marker("no_cover")
        for name, skip in missing.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Tests that a measured test runs in a child of its own: pytest-cov is not there to ask."""
    coverage = sys.modules.get("coverage")
    measuring = coverage.Coverage.current() if coverage else None
    there = item.config.pluginmanager.hasplugin("_cov")
    if measuring is None or there or not item.get_closest_marker("no_cover"):
        return (yield)
    measuring.stop()
    try:
        return (yield)
    finally:
        measuring.start()


@pytest.fixture(autouse=True)
def _children_as_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keeps children of the tests above from being measured."""
    with pytest.MonkeyPatch.context() as patch:
        if _among(request.node, (*_UNMEASURED, *_CHILDREN_UNMEASURED)):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield
