"""The C++ tests, built with warnings as errors; the parsers under libFuzzer; TSan on the rings.

FUZZ_SECONDS bounds each fuzzer (default 10). The builds stay in build/ and are quick the next time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 900.0  # seconds for a build on a busy machine
# A test that this build has not, for want of DPDK or UCX, is skipped.
NAMES = ("datagram", "link", "dpdk", "dpdk_memif", "dpdk_memif_kill", "ucx")
# What UCX reads when it is loaded; see genie_transport._ucx_path.
SETTINGS = {"UCX_HANDLE_ERRORS": "none", "UCX_MEM_EVENTS": "no", "UCX_MEM_MMAP_HOOK_MODE": "none"}


def run(*command: str, limit: float = LIMIT) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        env=os.environ | SETTINGS | {"UBSAN_OPTIONS": "halt_on_error=1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def build(folder: str, targets: list[str], *options: str) -> Path:
    """Configure build/`folder` and build `targets` that it has; skips without the tools."""
    for tool in ("cmake", "ninja", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    where = ROOT / "build" / folder
    run("cmake", "-S", ".", "-B", str(where), "-G", "Ninja", "-DGENIE_PYTHON=OFF", *options)
    there = run("ninja", "-C", str(where), "-t", "targets", "all")
    known = [name for name in targets if f"\n{name}: phony" in there]
    run("ninja", "-C", str(where), *known)
    return where


@pytest.fixture(scope="module")
def tests() -> Path:
    """The folder in which ctest finds the tests."""
    if not Path("/usr/include/doctest/doctest.h").exists():
        pytest.skip("doctest is not installed: apt-get install doctest-dev")
    targets = ["datagram_tests", "link_tests", "dpdk_tests", "dpdk_pair", "ucx_tests"]
    options = ("-DCMAKE_BUILD_TYPE=Release", "-DGENIE_TESTS=ON", "-DGENIE_WERROR=ON")
    return build("ci", targets, *options) / "native"


@pytest.mark.parametrize("name", NAMES)
def test_cpp(tests: Path, name: str) -> None:
    listed = json.loads(run("ctest", "--test-dir", str(tests), "--show-only=json-v1"))
    if name not in {test["name"] for test in listed["tests"]}:
        pytest.skip(f"this build has no {name} tests: DPDK or UCX is missing")
    said = run(
        *("ctest", "--test-dir", str(tests), "-R", f"^{name}$"),
        *("--output-on-failure", "--timeout", "300"),
    )
    if "***Skipped" in said:
        pytest.skip(f"{name}: the machine lacks what it needs")
    assert "100% tests passed" in said, said


def test_fuzz() -> None:
    """Every fuzzer for a short while, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    if shutil.which("clang++") is None:
        pytest.skip("libFuzzer needs clang: apt-get install clang")
    fuzzers = sorted(path.stem for path in (ROOT / "native/fuzz").glob("fuzz_*.cpp"))
    where = build(
        "fuzz",
        fuzzers,
        *("-DCMAKE_CXX_COMPILER=clang++", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DGENIE_FUZZ=ON"),
        *("-DGENIE_SANITIZE=address,undefined", "-DGENIE_DPDK=OFF", "-DGENIE_UCX=OFF"),
    )
    seconds = int(os.environ.get("FUZZ_SECONDS", "10"))
    for fuzzer in fuzzers:
        said = run(
            str(where / "native/fuzz" / fuzzer),
            f"-max_total_time={seconds}",
            "-max_len=4096",
            # Linux counts the memory that this process had when it started the fuzzer as the
            # fuzzer's own: what single allocations may take is the bound that means something.
            *("-rss_limit_mb=0", "-malloc_limit_mb=256"),
            f"-artifact_prefix={where}/",
            limit=seconds + 120.0,
        )
        assert "Done " in said, said[-2000:]


@pytest.mark.sweep
def test_rings_under_tsan() -> None:
    """The shared-memory rings under ThreadSanitizer."""
    where = build(
        "tsan",
        ["link_tests"],
        *("-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DGENIE_TESTS=ON", "-DGENIE_SANITIZE=thread"),
        *("-DGENIE_DPDK=OFF", "-DGENIE_UCX=OFF"),
    )
    said = run(str(where / "native/tests/link/link_tests"), "-sf=*test_ring*")
    assert "Status: SUCCESS" in said, said[-2000:]
