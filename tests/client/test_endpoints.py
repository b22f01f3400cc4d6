"""Which node serves which device: by order, by name, or one for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.client.endpoints import assign, parse_on
from genie.client.link import NodeLink
from genie_runtime import endpoint
from genie_schemas.errors import GenieError
from genie_schemas.plan import ExecutionPlan
from tests.plans_by_hand import two_layers


@pytest.fixture
def plan(tmp_path: Path) -> ExecutionPlan:
    return two_layers(tmp_path, devices=2).plan


A, B = cast(NodeLink, "a"), cast(NodeLink, "b")


def test_endpoints_bind_by_order_by_name_or_alone(plan: ExecutionPlan) -> None:
    assert assign(plan, [(None, A)]) == {"d0": A, "d1": A}
    assert assign(plan, [(None, A), (None, B)]) == {"d0": A, "d1": B}
    assert assign(plan, [("d1", A), ("d0", B)]) == {"d0": B, "d1": A}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([(None, A), (None, B), (None, A)], "3 endpoints for 2 devices"),
        ([("d0", A)], "no endpoint serves d1"),
        ([("d0", A), ("d2", B)], "no device 'd2'"),
        ([("d0", A), ("dd1", B)], "no device 'dd1'; did you mean 'd1'?"),
    ],
)
def test_endpoints_that_do_not_match(plan: ExecutionPlan, nodes: Any, words: str) -> None:
    with pytest.raises(GenieError) as caught:
        assign(plan, nodes)
    assert caught.value.code == "GEN0422"
    assert caught.value.exit_code == 2
    assert words in caught.value.message


def test_on_names_devices_or_does_not() -> None:
    assert parse_on(["unix:///a", "h:1"]) == [(None, "unix:///a"), (None, "h:1")]
    assert parse_on(["d0=unix:///a=b", "d1=h:1"]) == [("d0", "unix:///a=b"), ("d1", "h:1")]
    assert parse_on(["unix:///a=b"]) == [(None, "unix:///a=b")]
    for texts in (["d0=a:1", "b:2"], ["d0=a:1", "d0=b:2"]):
        with pytest.raises(GenieError) as caught:
            parse_on(texts)
        assert caught.value.code == "GEN0422"


@pytest.mark.parametrize(
    ("text", "target", "local"),
    [
        ("unix:///run/g.sock", "unix:/run/g.sock", True),
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("localhost:80", "localhost:80", True),
        ("[::1]:80", "[::1]:80", True),
        ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", True),
        ("[::]:80", "[::]:80", False),
        ("0.0.0.0:80", "0.0.0.0:80", False),
        ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80", False),
        ("localhost.example.org:80", "localhost.example.org:80", False),
    ],
)
def test_endpoints_know_who_reaches_them(text: str, target: str, local: bool) -> None:
    found = endpoint.parse(text)
    assert (found.grpc_target, found.is_local, str(found)) == (target, local, text)


@given(st.text(max_size=40))
def test_any_text_is_an_endpoint_or_a_typed_error(text: str) -> None:
    try:
        found = endpoint.parse(text)
    except GenieError as error:
        assert error.code == "GEN0514"
    else:
        assert endpoint.parse(str(found)) == found
