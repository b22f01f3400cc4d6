"""Devices that cannot be had: a typed error each, with its cause and remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from genie_schemas.errors import GenieError
from genie_transport import Fabric, FabricHello
from genie_transport import _fabric as fabric_module
from genie_transport._device import parse_device
from genie_transport._fabric_pair import missing, veth_pair

needs_dpdk = pytest.mark.skipif(missing("dpdk") is not None, reason=str(missing("dpdk")))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and packet sockets need root")


def refusal(device: str, **options: object) -> GenieError:
    with pytest.raises(GenieError) as caught:
        Fabric.open(device, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize(
    "device",
    [
        "",
        "eth0",
        "net_null0",
        "net_af_packet0",
        "net_af_packet0,iface",
        "net_af_packet0,iface=a/b",
        "net_af_packet0,iface=veth0,qpairs=9",
        "net_af_packet0,iface=veth0,mtu=70000",
        "net_af_packet0,iface=veth0,mtu=1500,mtu=9000",
        "net_af_packet0,iface=veth0,ip=10.0.0.256",
        "net_af_packet0,iface=veth0,ip=0.0.0.0",
        "net_memif0,role=master,socket=/tmp/x",
        "net_memif0,role=server",
        "net_memif0,role=server,socket=relative",
        "net_ring0,drop=1.5",
        "net_ring0,drop=nan",
        "net_ring0,udp=0",
        "net_ring0,pages=gigantic",
        "ring0",
    ],
)
def test_malformed_devices(device: str, snapshot: SnapshotAssertion) -> None:
    error = refusal(device)
    assert error.code == "GEN0602"
    assert str(error) == snapshot


def test_what_a_device_says() -> None:
    device = parse_device(
        "0000:01:00.0,mtu=9000,ip=10.1.2.3,udp=5000,pages=huge,shared=no,drop=0.5"
    )
    assert (device.kind, device.where, device.mtu) == ("pci", "0000:01:00.0", 9000)
    assert (device.ip, device.udp, device.pages) == (bytes((10, 1, 2, 3)), 5000, "huge")
    assert device.shared is False
    assert device.faults["drop"] == 0.5
    assert parse_device("net_memif3,role=client,socket=/run/m").number == 3


def test_memory_and_namespace_are_checked(snapshot: SnapshotAssertion) -> None:
    assert refusal("net_ring0", memory_mb=1).code == "GEN0602"
    for name in ("", "../x", "a/b", "."):
        assert refusal("net_ring0", netns=name).code == "GEN0602"
    error = refusal("net_ring0", netns="genie-there-is-none")
    assert error.code == "GEN0647"
    assert str(error) == snapshot


def test_without_the_dpdk_part(
    monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    fabric_module.dpdk_module.cache_clear()
    # As Python marks a module that must not be imported.
    monkeypatch.setitem(sys.modules, "genie_transport._dpdk", None)
    monkeypatch.delattr("genie_transport._dpdk", raising=False)
    try:
        error = refusal("net_ring0")
    finally:
        fabric_module.dpdk_module.cache_clear()
    assert error.code == "GEN0644"
    assert "apt-get install dpdk-dev libdpdk-dev" in (error.remedy or "")
    assert str(error) == snapshot


@needs_dpdk
def test_devices_that_are_not_there(
    dpdk: None, snapshot: SnapshotAssertion, tmp_path: Path
) -> None:
    found = {
        "interface": refusal("net_af_packet7,iface=genie-none"),
        "xdp mtu": refusal("net_af_xdp7,iface=genie-none,mtu=9000"),
        "frame": refusal("net_af_packet7,iface=genie-none,mtu=65000"),
        "pci": refusal("0000:ff:1f.7"),
        "no server": refusal(f"net_memif7,role=client,socket={tmp_path}/none.sock"),
    }
    shown = {name: str(error).replace(str(tmp_path), "TMP") for name, error in found.items()}
    assert {name: error.code for name, error in found.items()} == {
        "interface": "GEN0647",
        "xdp mtu": "GEN0642",
        "frame": "GEN0642",
        "pci": "GEN0645",
        "no server": "GEN0642",
    }
    assert shown == snapshot


@needs_dpdk
@needs_root
def test_interfaces_that_cannot_be_used(dpdk: None, snapshot: SnapshotAssertion) -> None:
    assert refusal("net_af_packet7,iface=lo").code == "GEN0648"
    assert str(refusal("net_af_packet7,iface=lo")) == snapshot
    from pyroute2 import NetNS

    with veth_pair(1500) as veth:
        (name, _), (space, _) = veth.interfaces, veth.namespaces
        small = refusal(f"net_af_packet7,iface={name},mtu=9000", netns=space)
        with NetNS(space) as there:
            index = there.link_lookup(ifname=name)[0]
            there.link("set", index=index, state="down")
            down = refusal(f"net_af_packet7,iface={name}", netns=space)
    assert (small.code, down.code) == ("GEN0647", "GEN0647")
    shown = [re.sub(r"gn[0-9a-f]{6}a", "VETH", str(error)) for error in (small, down)]
    assert shown == snapshot


@needs_dpdk
def test_a_device_twice(dpdk: None, snapshot: SnapshotAssertion) -> None:
    with Fabric.open("net_ring7"):
        error = refusal("net_ring7")
    assert error.code == "GEN0642"
    assert str(error) == snapshot
    with Fabric.open("net_ring7") as again:  # closed, it can be had once more
        assert again.up()


def elsewhere(code: str) -> str:
    """What a new process prints: DPDK starts once in each."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout


_SHOW = """
from genie_schemas.errors import GenieError
from genie_transport import Fabric
def show(device, **options):
    try:
        Fabric.open(device, **options).close()
        print("opened")
    except GenieError as error:
        print(error.code, error.cause)
"""


@needs_dpdk
def test_huge_pages_that_are_not_there() -> None:
    shown = elsewhere(_SHOW + "show('net_ring0,pages=huge', memory_mb=1 << 20)\nshow('net_ring0')")
    first, second = shown.splitlines()
    assert re.fullmatch(r"GEN0646 needs 1048576 MB of free huge pages, has \d+: .*", first)
    assert second == "opened"  # asking too much has not used up the one start


@needs_dpdk
def test_dpdk_runs_with_other_options() -> None:
    shown = elsewhere(
        _SHOW + "show('net_ring0,pages=ordinary')\n"
        "show('net_ring1,pages=huge')\nshow('0000:01:00.0')\nshow('net_ring1')"
    )
    opened, huge, pci, last = shown.splitlines()
    assert (opened, last) == ("opened", "opened")
    assert huge == "GEN0645 DPDK runs already in this process, on ordinary pages"
    assert pci == "GEN0645 DPDK runs already in this process, and may not take 0000:01:00.0"


@needs_dpdk
@needs_root
def test_without_permission() -> None:
    """As an ordinary user: packet sockets are refused, rings are not."""
    shown = elsewhere(
        _SHOW + "import genie_transport._dpdk, os, socket\n"
        "interface = next(n for _, n in socket.if_nameindex() if n != 'lo')\n"
        "os.setresgid(65534, 65534, 65534)\nos.setresuid(65534, 65534, 65534)\n"
        "show(f'net_af_packet0,iface={interface},mtu=576')\nshow('net_ring0')"
    )
    refused, opened = shown.splitlines()
    assert refused.startswith("GEN0649 ")
    assert refused.endswith("packet sockets need CAP_NET_RAW and CAP_NET_ADMIN")
    assert opened == "opened"


def test_hellos_are_checked() -> None:
    hello = FabricHello(b"\2\0\0\0\0\1", b"\n\0\0\1", 4791, 8972, 1 << 20, True, "net_ring")
    data = hello.to_bytes()
    assert len(data) == FabricHello.SIZE
    assert FabricHello.from_bytes(data) == hello
    wrong = [data[:-1], data + b"\0", b"GFH\x02" + data[4:], data[:4] + b"\xff" * 6 + data[10:]]
    for at, value in ((10, 0), (10, 224), (14, 0), (16, 0xFF), (28, 7), (29, 7)):
        changed = bytearray(data)
        changed[at] = value
        if at == 14:
            changed[15] = 0
        wrong.append(bytes(changed))
    for bad in wrong:
        with pytest.raises(GenieError, match="GEN0607"):
            FabricHello.from_bytes(bad)
