"""Daemons with DPDK ports: plans over dpdk, ports that go, and ports that cannot be had."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroute2 import NetNS
from syrupy.assertion import SnapshotAssertion

from genie.client import connect
from genie.client.admin import status
from genie.testing.inputs import sample_inputs
from genie_runtime.embedded import default_threads
from genie_runtime.fabrics import candidates, prepare_interface
from genie_schemas.errors import GenieError
from genie_transport._fabric_pair import Veth, missing, veth_pair
from tests.daemons import Daemon, Daemons, until
from tests.golden.support import compiled
from tests.plans_by_hand import two_layers

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)
LACKING = missing("dpdk-af_packet")

dpdk = pytest.mark.skipif(LACKING is not None, reason=f"no DPDK ports here: {LACKING}")
root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
pytestmark = pytest.mark.root


@pytest.fixture
def veth() -> Iterator[Veth]:
    with veth_pair(9000) as pair:
        yield pair


def device(veth: Veth, end: int, more: str = "") -> tuple[str, str]:
    return ("--dpdk", f"net_af_packet0,iface={veth.interfaces[end]},mtu=9000,{address(end)}{more}")


def address(end: int) -> str:
    return f"ip=10.99.0.{end + 1}"


def start(daemons: Daemons, veth: Veth, end: int, *argv: str) -> Daemon:
    """A daemon in the host's network namespace, whose port is in one of the veth pair's."""
    where = f",netns={veth.namespaces[end]}"
    return daemons.start(f"d{end}", *device(veth, end, where), *argv)


def links(daemon: Daemon) -> list[dict[str, Any]]:
    log = (daemon.state_dir / "negotiations.jsonl").read_text()
    return [entry["link"] for line in log.splitlines() if "link" in (entry := json.loads(line))]


def check(name: str, ends: list[str], transport: str) -> None:
    """An example over the daemons equals the same in this process, to the last bit."""
    made = compiled(name)
    inputs: dict[str, Any] = dict(sample_inputs(made.spec, {}))
    path = made.folder / f"{name}.plan.json"
    with connect() as here:
        here.install(path)
        wanted = here.run(inputs).to_json()["outputs"]
    with connect(ends, transport=transport) as session:
        session.install(path)
        for _ in range(2):
            found = session.run(inputs)
            assert found.to_json()["outputs"] == wanted, name
            between = {k: v for k, v in found.transports.items() if not k.startswith("client")}
            assert set(between.values()) == {"dpdk"}, name


@dpdk
@pytest.mark.slow
def test_examples_between_two_namespaces(daemons: Daemons, veth: Veth) -> None:
    """Vision, text and recommendation: two daemons, each in a namespace of its own."""
    threads = ("--threads", str(default_threads()))
    ends = [
        daemons.start(f"d{end}", *device(veth, end), *threads, netns=veth.namespaces[end]).endpoint
        for end in (0, 1)
    ]
    for name in ("digits-two", "masked-lm-two", "dlrm-two"):
        check(name, ends, "dpdk")


@dpdk
@pytest.mark.slow
def test_an_example_over_memif(daemons: Daemons) -> None:
    """Shared memory between two daemons, through two ports of DPDK; the choice is left open."""
    socket = daemons.folder / "memif.sock"
    threads = ("--threads", str(default_threads()), "--peer-listen", "127.0.0.1:0")
    ends = []
    for end, role in enumerate(("server", "client")):
        port = f"net_memif0,role={role},socket={socket},mtu=9000,{address(end)}"
        ends.append(daemons.start(f"d{end}", "--dpdk", port, *threads).endpoint)
    check("digits-two", ends, "auto")


# -- ports that go -------------------------------------------------------------------------------


def down(veth: Veth, end: int) -> None:
    with NetNS(veth.namespaces[end]) as there:
        there.link("set", index=there.link_lookup(ifname=veth.interfaces[end])[0], state="down")


@dpdk
def test_a_session_moves_when_its_port_goes_down(
    daemons: Daemons, veth: Veth, tmp_path: Path
) -> None:
    made = two_layers(tmp_path, devices=2)
    both = [start(daemons, veth, end, "--peer-listen", "127.0.0.1:0") for end in (0, 1)]
    with connect([daemon.endpoint for daemon in both]) as session:
        session.install(made.path)
        first = session.run({"x": X})
        assert first.transports["d0->d1"] == "dpdk"
        down(veth, 0)
        second = session.run({"x": X}, deadline=60.0)
        assert second.outputs["y"].tobytes() == first.outputs["y"].tobytes()
        assert second.transports["d0->d1"] == "tcp"
    for daemon in both:
        until(lambda d=daemon: [x["path"] for x in links(d)] == ["shm", "dpdk", "tcp"])  # type: ignore[misc]
        assert links(daemon)[-1]["reasons"]["dpdk"]
        assert status(daemon.endpoint).telemetry["path_switches"] == 1
        assert "the session goes on over tcp" in daemon.log


@dpdk
def test_a_named_path_is_not_left(daemons: Daemons, veth: Veth, tmp_path: Path) -> None:
    made = two_layers(tmp_path, devices=2)
    both = [start(daemons, veth, end, "--peer-listen", "127.0.0.1:0") for end in (0, 1)]
    with connect([daemon.endpoint for daemon in both], transport="dpdk") as session:
        session.install(made.path)
        session.run({"x": X})
        down(veth, 1)
        with pytest.raises(GenieError) as caught:
            session.run({"x": X}, deadline=60.0)
        assert caught.value.code in ("GEN0418", "GEN0414")
        with pytest.raises(GenieError) as caught:  # a new link is asked for, over the same path
            session.run({"x": X}, deadline=60.0)
        assert caught.value.code in ("GEN0609", "GEN0650", "GEN0651")
        assert caught.value.exit_code == 5
    for daemon in both:
        assert {link["path"] for link in links(daemon)} == {"shm", "dpdk"}
        assert status(daemon.endpoint).telemetry["path_switches"] == 0


@dpdk
def test_a_daemon_killed_beside_its_port(daemons: Daemons, veth: Veth, tmp_path: Path) -> None:
    """The connection tells of the death at once; nobody waits for the port to notice."""
    made = two_layers(tmp_path, devices=2)
    both = [start(daemons, veth, end) for end in (0, 1)]
    with connect([daemon.endpoint for daemon in both], transport="dpdk") as session:
        session.install(made.path)
        session.run({"x": X})
        both[1].kill()
        with pytest.raises(GenieError) as caught:
            session.run({"x": X}, deadline=30.0)
        assert caught.value.code == "GEN0502"
    with connect(both[0].endpoint) as session:  # the other serves on
        session.install(made.path)
        session.run({"x": X})


@dpdk
def test_a_trusted_fabric_says_so(daemons: Daemons, veth: Veth, tmp_path: Path) -> None:
    made = two_layers(tmp_path, devices=2)
    both = [start(daemons, veth, end, "--trusted-fabric") for end in (0, 1)]
    with connect([daemon.endpoint for daemon in both], transport="dpdk") as session:
        session.install(made.path)
        assert session.run({"x": X}).transports["d0->d1"] == "dpdk"
    for daemon in both:
        assert "trusted fabric: datagrams" in daemon.log


def test_dpdk_is_loaded_only_when_it_is_asked_for(daemons: Daemons) -> None:
    maps = Path(f"/proc/{daemons.start().process.pid}/maps").read_text()
    assert "_core" in maps
    assert "librte" not in maps
    assert "_dpdk" not in maps


# -- ports that cannot be had --------------------------------------------------------------------


@dpdk
def test_ports_that_cannot_be_opened(
    daemons: Daemons, veth: Veth, snapshot: SnapshotAssertion
) -> None:
    name, space = veth.interfaces[0], veth.namespaces[0]
    devices = {
        "malformed": "eth1",
        "no such interface": "net_af_packet0,iface=gn-none",
        "no such namespace": "net_af_packet0,iface=eth1,netns=gn-none",
        "setup in no namespace": "net_af_packet0,iface=eth1,netns=gn-none,setup=yes",
        "setup is yes or no": "net_af_packet0,iface=eth1,setup=perhaps",
        "setup without an interface": "net_memif0,role=server,socket=/tmp/x,setup=yes",
        "setup of nothing": "net_af_packet0,iface=gn-none,setup=yes",
        "the host's own": "net_af_packet0,iface=lo,setup=yes",
        "too large": f"net_af_packet0,iface={name},netns={space},mtu=9001",
    }
    found = {}
    for number, (case, text) in enumerate(devices.items()):
        daemon = daemons.start(f"d{number}", "--dpdk", text, wait=False)
        code = daemon.process.wait(30)
        assert "Traceback" not in daemon.log
        told = [line for line in daemon.log.splitlines() if not line.startswith("{")]
        text = re.sub(r"there are .*|add one without.*", "INTERFACES", "\n".join(told))
        found[case] = [code, *re.sub(r"gn[0-9a-f]{6}a", "gnA", text).splitlines()]
    assert found == snapshot


# -- interfaces ----------------------------------------------------------------------------------


@root
def test_an_interface_is_made_ready(veth: Veth) -> None:
    name, space = veth.interfaces[0], veth.namespaces[0]
    with NetNS(space) as there:
        (index,) = there.link_lookup(ifname=name)
        there.link("set", index=index, state="down", mtu=1500)
        prepare_interface(name, 8000, space)
        (link,) = there.get_links(index)
        assert link.get_attr("IFLA_MTU") == 8000
        assert link["flags"] & 1  # up
        assert candidates(space) == [name]
        with pytest.raises(GenieError, match="GEN0532"):
            prepare_interface(name, 65535 + 1, space)


@root
def test_the_hosts_own_interfaces_are_left_alone(veth: Veth) -> None:
    """One with an address, one in a bridge, loopback: refused, and nothing about them changes."""
    name, space = veth.interfaces[0], veth.namespaces[0]
    with NetNS(space) as there:
        (index,) = there.link_lookup(ifname=name)
        there.link("add", ifname="bridge", kind="bridge")
        (bridge,) = there.link_lookup(ifname="bridge")
        there.link("set", index=index, state="down", mtu=1500)
        there.addr("add", index=index, address="192.0.2.1", prefixlen=24)
        refused(there, name, space, "carries an address")
        there.addr("delete", index=index, address="192.0.2.1", prefixlen=24)
        there.link("set", index=index, master=bridge)
        refused(there, name, space, "bridge or bond")
    with pytest.raises(GenieError, match="no Ethernet interface"):
        prepare_interface("lo", 9000)


def test_a_namespace_that_is_not_there_leaves_nothing_open() -> None:
    with pytest.raises(GenieError, match="no such network namespace"):
        prepare_interface("eth1", 9000, "gn-none")
    gc.collect()  # says what was left open, and fails the test with it


def refused(there: NetNS, name: str, space: str, reason: str) -> None:
    with pytest.raises(GenieError) as caught:
        prepare_interface(name, 9000, space)
    assert caught.value.code == "GEN0532"
    assert reason in str(caught.value.cause)
    (link,) = there.get_links(there.link_lookup(ifname=name)[0])
    assert link.get_attr("IFLA_MTU") == 1500
    assert not link["flags"] & 1
    assert name not in candidates(space)
