"""Each probe on machines that have, lack or half have what it looks for."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from genie.doctor import Machine, diagnose
from tests.doctor.machines import Bench

GPU = {"version": "2.13.0", "cuda": "12.8", "devices": ["NVIDIA H100"]}
NAMES = [
    "python",
    "torch",
    "cuda",
    "grpc",
    "dpdk",
    "nics",
    "rdma",
    "gpu-direct",
    "ucx",
    "native",
    "native-dpdk",
    "native-ucx",
    "dpdk-drivers",
    "packet-sockets",
    "xdp-sockets",
    "capabilities",
    "iperf3",
    "hugepages",
    "shared-memory",
    "memfd",
    "state-folder",
    "open-files",
]


def test_this_machine_runs_genie() -> None:
    """The probes for real: a machine that runs these tests has all that is required."""
    checks = diagnose()
    assert [check.name for check in checks] == NAMES
    assert [check.name for check in checks if not check.ok] == []


def test_required_parts_fail_and_optional_ones_only_when_strict(bench: Bench) -> None:
    bench.python(torch=None)
    lax, strict = bench.checks(), bench.checks(strict=True)
    assert [name for name, check in lax.items() if not check.ok] == ["torch"]
    assert lax["dpdk"].required == "optional: 22.11 or newer"
    assert not strict["dpdk"].ok
    assert strict["dpdk"].required == "22.11 or newer"
    assert strict["python"].ok


def test_python_below_the_floor(bench: Bench) -> None:
    bench.python(version="3.10.14", torch=GPU)
    check = bench.checks()["python"]
    assert (check.found, check.ok) == ("3.10.14", False)
    assert "python3.11" in (check.remedy or "")


@pytest.mark.parametrize(
    ("torch", "found", "ok"),
    [
        ({**GPU, "version": "2.13.0+cpu", "cuda": None}, "2.13.0+cpu (CPU build)", True),
        (GPU, "2.13.0 (CUDA 12.8 build)", True),
        ({**GPU, "version": "2.9.1"}, "2.9.1 (CUDA 12.8 build)", False),
        (None, "not installed", False),
        ("OSError: libc10.so: bad", "import fails: OSError: libc10.so: bad", False),
    ],
)
def test_torch(bench: Bench, torch: dict[str, object] | str | None, found: str, ok: bool) -> None:
    bench.python(torch=torch)
    check = bench.checks()["torch"]
    assert (check.found, check.ok) == (found, ok)
    assert check.remedy == (None if ok else "pip install torch==2.13.0")


def test_an_interpreter_that_is_not_there(bench: Bench) -> None:
    checks = diagnose(replace(bench.machine, python=str(bench.folder / "nowhere")))
    assert [check.name for check in checks if not check.ok] == ["python", "torch", "grpc"]


def test_grpc_below_the_floor(bench: Bench) -> None:
    bench.python(torch=GPU, grpc="1.62.0")
    check = bench.checks()["grpc"]
    assert (check.found, check.ok) == ("1.62.0", False)


SMI = "echo 'NVIDIA H100 80GB HBM3, 570.86.15'"


@pytest.mark.parametrize(
    ("torch", "found", "present"),
    [
        (GPU, "NVIDIA H100 80GB HBM3; driver 570.86.15", True),
        (
            {**GPU, "cuda": None, "devices": []},
            "NVIDIA H100 80GB HBM3; driver 570.86.15; torch is a CPU build",
            False,
        ),
        (
            {**GPU, "devices": []},
            "NVIDIA H100 80GB HBM3; driver 570.86.15; torch's CUDA 12.8 cannot use it",
            False,
        ),
        (None, "NVIDIA H100 80GB HBM3; driver 570.86.15", False),
    ],
)
def test_cuda(bench: Bench, torch: dict[str, object] | None, found: str, present: bool) -> None:
    bench.python(torch=torch)
    bench.tool("nvidia-smi", SMI)
    check = bench.checks()["cuda"]
    assert (check.found, check.present, check.ok) == (found, present, True)
    assert (check.remedy is None) is present


def test_cuda_without_a_gpu_or_without_its_driver(bench: Bench) -> None:
    nothing = bench.checks()["cuda"]
    assert (nothing.found, nothing.remedy) == ("none", None)
    bench.file("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")
    bench.file("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    assert bench.checks()["cuda"].found == "an NVIDIA GPU without a driver"
    bench.file("/proc/driver/nvidia/version", "NVRM version: 570\n")
    bench.tool("nvidia-smi", "echo 'No devices were found'; exit 6")
    assert bench.checks()["cuda"].found == "driver loaded, no GPU answers"


def test_dpdk_from_pkg_config_from_libraries_and_absent(
    bench: Bench, as_user: Callable[[int], None]
) -> None:
    as_user(1000)
    absent = bench.checks()["dpdk"]
    assert absent.found == "not installed"
    assert absent.remedy == "sudo apt-get install dpdk-dev libdpdk-dev"

    bench.file("/usr/lib/x86_64-linux-gnu/librte_eal.so.22")
    old = bench.checks()["dpdk"]
    assert (old.found, old.present) == ("21.11 (libraries only, no headers)", False)

    bench.file("/usr/lib/x86_64-linux-gnu/librte_eal.so.25.0")
    assert bench.checks()["dpdk"].present

    bench.tool("pkg-config", "echo 22.11.7")
    headers = bench.checks()["dpdk"]
    assert (headers.found, headers.present, headers.remedy) == ("22.11.7", True, None)


def test_nics_come_from_the_kernel_with_their_drivers(bench: Bench) -> None:
    import socket

    names = [name for _, name in socket.if_nameindex()]
    assert bench.checks()["nics"].found == "none"
    bench.driver(f"/sys/class/net/{names[0]}", "mlx5_core")
    assert bench.checks()["nics"].found.startswith(f"{names[0]} (mlx5_core, ")


def test_rdma_names_device_driver_and_state(bench: Bench) -> None:
    assert bench.checks()["rdma"].found == "none"
    bench.file("/sys/class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n")
    bench.driver("/sys/class/infiniband/mlx5_0", "mlx5_core")
    unusable = bench.checks()["rdma"]
    assert unusable.found == "mlx5_0 (mlx5_core, active); no libibverbs"
    assert "rdma-core" in (unusable.remedy or "")
    bench.file("/usr/lib64/libibverbs.so.1.14.39.0")
    assert bench.checks()["rdma"].present


def test_gpu_direct_needs_a_module_beside_the_driver(
    bench: Bench, as_user: Callable[[int], None]
) -> None:
    as_user(0)
    assert bench.checks()["gpu-direct"].remedy is None
    bench.file("/sys/module/nvidia/version", "570")
    assert bench.checks()["gpu-direct"].remedy == "modprobe nvidia-peermem"
    bench.file("/sys/module/gdrdrv/version", "2.5")
    found = bench.checks()["gpu-direct"]
    assert found.found.startswith("gdrdrv; pinned buffers (DPDK has no gpudev driver")
    assert found.remedy is None  # no command brings what the distribution does not build
    bench.file("/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_gpu_cuda.so.23")
    assert "no transport of this build" in bench.checks()["gpu-direct"].found


def test_ucx_from_its_tool_or_its_library(bench: Bench) -> None:
    assert bench.checks()["ucx"].found == "not installed"
    bench.file("/usr/lib/aarch64-linux-gnu/libucp.so.0.0.0")
    assert bench.checks()["ucx"].found == "libucp.so.0"
    bench.tool("ucx_info", "echo '# Library version: 1.16.0'")
    assert bench.checks()["ucx"].found == "1.16.0"


def test_hugepages_of_every_size_count(bench: Bench) -> None:
    for size, count, free in (("2048", "64", "10"), ("1048576", "1", "1")):
        bench.file(f"/sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages", count)
        bench.file(f"/sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages", free)
    check = bench.checks()["hugepages"]
    assert check.found == "1 x 1024 MiB (1 free), 64 x 2 MiB (10 free)"
    assert check.present


def test_too_few_hugepages_are_absent(bench: Bench) -> None:
    bench.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "127")
    assert not bench.checks()["hugepages"].present


def test_shared_memory_that_is_not_mounted(bench: Bench) -> None:
    (bench.folder / "root/dev/shm").rmdir()
    check = bench.checks()["shared-memory"]
    assert (check.present, check.ok) == (False, True)
    assert "No such file" in check.found


def test_state_folder_is_judged_without_being_made(bench: Bench) -> None:
    state = bench.machine.state / "deeper"
    machine = replace(bench.machine, state=state)
    assert {c.name: c for c in diagnose(machine)}["state-folder"].ok
    assert not state.exists()

    bench.machine.state.write_text("a file stands in its place")
    check = {c.name: c for c in diagnose(machine)}["state-folder"]
    assert not check.ok
    assert "XDG_STATE_HOME" in (check.remedy or "")


def test_state_folder_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Machine().state == tmp_path / "genie"


@pytest.mark.parametrize(
    ("limits", "remedy"),
    [
        ((256, 4096), "ulimit -n 1024"),
        ((256, 512), "prlimit --pid $$ --nofile=1024"),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_open_files(
    bench: Bench,
    as_user: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[int, int],
    remedy: str | None,
) -> None:
    as_user(0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    check = bench.checks()["open-files"]
    assert (check.remedy, check.ok) == (remedy, remedy is None)


def test_a_tool_that_hangs_counts_as_absent(bench: Bench) -> None:
    bench.tool("slow", "exec sleep 30")
    assert bench.machine.run("slow", timeout=0.2) is None
    assert bench.machine.ask_python("", timeout=0.0) == (False, "no answer within 0 s")


def test_a_sandbox_without_memfd(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.memfd_create", refused)
    check = bench.checks()["memfd"]
    assert (check.found, check.ok) == ("Operation not permitted", False)
