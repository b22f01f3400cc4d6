"""The data plane's probes, on machines that have, lack or refuse what paths need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from genie.doctor import diagnose
from tests.doctor.machines import Bench

PLUGINS = "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0"


def test_this_machine_imports_what_it_says_is_built() -> None:
    for check in diagnose():
        if check.name == "native":
            assert check.found == "built"
            assert check.remedy is None
            return
    pytest.fail("no such check")


def test_native_modules_that_are_built_missing_or_broken(
    bench: Bench, as_user: Callable[[int], None]
) -> None:
    as_user(1000)
    broken = "librte_eal.so.23: cannot open shared object file"
    bench.python(native={"_core": "", "_dpdk": broken, "_ucx": "not built"})
    checks = bench.checks()
    assert [checks[n].found for n in ("native", "native-dpdk", "native-ucx")] == [
        "built",
        broken,
        "not built",
    ]
    assert checks["native"].remedy is None
    assert checks["native-ucx"].remedy == "sudo apt-get install libucx-dev && make setup"
    assert all(checks[n].ok for n in ("native", "native-dpdk", "native-ucx"))
    assert not bench.checks(strict=True)["native-dpdk"].ok


@pytest.mark.parametrize("said", [None, {"_core": ""}])
def test_an_installation_that_does_not_answer_has_nothing(
    bench: Bench, said: dict[str, str] | None
) -> None:
    bench.python(native=said)
    checks = bench.checks()
    assert checks["native"].present is (said is not None)
    assert checks["native-dpdk"].found == "genie_transport does not import"


def test_drivers_are_counted_one_by_one(bench: Bench, as_user: Callable[[int], None]) -> None:
    as_user(0)
    nothing = bench.checks()["dpdk-drivers"]
    assert (nothing.found, nothing.remedy) == ("none", "apt-get install dpdk-dev libdpdk-dev")
    bench.file(f"{PLUGINS}/librte_net_memif.so.23")
    bench.file(f"{PLUGINS}/librte_net_ring.so.23.0")
    bench.file(f"{PLUGINS}/librte_net_af_packet.so")  # only for linking
    some = bench.checks()["dpdk-drivers"]
    assert (some.found, some.present) == ("net_memif, net_ring", False)
    for name in ("af_packet", "af_xdp"):
        bench.file(f"{PLUGINS}/librte_net_{name}.so.23")
    assert bench.checks()["dpdk-drivers"].present


def test_capabilities_by_their_bits(bench: Bench) -> None:
    assert bench.checks()["capabilities"].found == "none"
    bench.file("/proc/self/status", "Name:\tgenie\nCapEff:\t0000000000003000\nSeccomp:\t0\n")
    some = bench.checks()["capabilities"]
    assert (some.found, some.present) == ("net_admin, net_raw", False)
    assert "--ambient-caps=+net_admin,+net_raw," in (some.remedy or "")
    bench.file("/proc/self/status", "CapEff:\t000001ffffffffff\n")
    assert bench.checks()["capabilities"].present


def test_sockets_that_the_kernel_opens_without_the_capabilities_to_use_them(bench: Bench) -> None:
    if os.geteuid() != 0:
        pytest.skip("opening an XDP socket needs root")
    bench.file("/proc/self/status", "CapEff:\t0000000000002000\n")  # net_raw alone
    check = bench.checks()["xdp-sockets"]
    if "Address family" in check.found:
        pytest.skip("this kernel has no XDP sockets")
    assert check.found == "permitted, but not net_admin, bpf"
    assert bench.checks()["packet-sockets"].present


def test_a_user_without_rights_is_told_how_to_get_them() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    code = (
        "import json\n"
        "from genie.doctor._dataplane import _sockets\n"
        "from genie.doctor._machine import Machine\n"
        "import os, socket\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "c = _sockets(Machine(state=None), 'packet-sockets', socket.AF_PACKET, ('net_raw',))\n"
        "print(json.dumps([c.found, c.ok, c.present, c.remedy]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found, ok, present, remedy = json.loads(done.stdout)
    assert (found, ok, present) == ("not permitted", True, False)
    assert remedy.startswith("sudo setpriv ")
    assert remedy.endswith("--ambient-caps=+net_raw $(command -v genied)")


def test_iperf3_by_what_it_prints(bench: Bench) -> None:
    assert bench.checks()["iperf3"].found == "not installed"
    bench.tool("iperf3", "echo 'iperf 3.12 (cJSON 1.7.15)'")
    assert bench.checks()["iperf3"].found == "3.12"


def test_dpdk_s_version_comes_first_among_its_checks() -> None:
    names = [check.name for check in diagnose()]
    assert next(name for name in names if "dpdk" in name) == "dpdk"
