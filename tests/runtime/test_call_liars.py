"""Clients that lie on a call channel: nothing of what they ask for is executed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genie.client import connect
from genie.client.admin import status
from genie.client.inputs import check_inputs
from genie.client.link import LoadedPlan, RunSpec
from genie.client.remote_call import RemoteCall
from genie.client.session import Session
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from genie_transport import DMAHandle
from tests.daemons import Daemons, until
from tests.plans_by_hand import two_layers
from tests.runtime.support import X, link, reserved, warm


def channel(session: Session, loaded: LoadedPlan, inputs: dict[str, Any]) -> RemoteCall:
    return RemoteCall(link(session), spec_of(loaded, inputs), {})


def spec_of(loaded: LoadedPlan, inputs: dict[str, Any], run_id: str = "run-x") -> RunSpec:
    checked = check_inputs(loaded.installed.plan, "forward", inputs)
    return RunSpec(loaded, "forward", run_id, False, None, checked)


def _replay(call: RemoteCall) -> None:
    call._sequence -= 1


def _skip(call: RemoteCall) -> None:
    call._sequence += 1


def _elsewhere(call: RemoteCall) -> None:
    call._channel = os.urandom(16)


@pytest.mark.parametrize("lie", [_replay, _skip, _elsewhere])
def test_requests_out_of_turn_are_not_executed(
    daemons: Daemons, tmp_path: Path, lie: Callable[[RemoteCall], None]
) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        loaded = session.install(made.path)
        call = channel(session, loaded, {"x": X})
        spec = spec_of(loaded, {"x": X})
        call.start(spec, 10.0)
        first = call.wait(10.0)
        assert first is not None
        assert first.report is not None
        # The reply may overtake the count of the run that it answers.
        until(lambda: status(daemon.endpoint).runs == 1)
        ran = status(daemon.endpoint).runs
        sequence = call._sequence
        lie(call)
        call.start(spec, 10.0)
        call._sequence = sequence + 1  # the daemon answers the request that was due
        found = call.wait(10.0)
        assert found is not None
        assert found.error is not None
        assert found.error.code == "GEN0430"
        assert found.last
        assert status(daemon.endpoint).runs == ran
        until(lambda: reserved(daemon) == 0)
        call.close()


def test_run_ids_that_are_none_are_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    with connect(daemons.start().endpoint) as session:
        loaded = session.install(made.path)
        for run_id in ("", "-x", "a\nb", "x" * 129):
            call = channel(session, loaded, {"x": X})
            call.start(spec_of(loaded, {"x": X}, run_id), 10.0)
            found = call.wait(10.0)
            assert found is not None
            assert found.error is not None
            assert found.error.code == "GEN0430"
            call.close()


def test_forged_handles_and_sizes_are_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        loaded = session.install(made.path)
        node = link(session)
        handle = node.data.register(bytearray(64))
        good: dict[str, Any] = {
            "session": node.session,
            "plan_digest": loaded.digest,
            "entrypoint": "forward",
            "dims": {"batch": 3},
            "links": {},
            "reply": handle.to_json(),
            "outputs": {},
        }
        for changes, code in (
            ({}, "GEN0430"),  # 64 bytes are no room for a reply
            ({"reply": {**handle.to_json(), "length": 1 << 40}}, "GEN0430"),
            ({"outputs": {"y": handle.to_json()}}, "GEN0430"),
            ({"dims": {"batch": 9}}, "GEN0404"),
            ({"dims": {}}, "GEN0404"),
            ({"entrypoint": "backward"}, "GEN0407"),
            ({"links": {"h/transfer": "0" * 32}}, "GEN0418"),
        ):
            with pytest.raises(GenieError) as caught:
                node.channel.call(
                    "OpenCall", m.OpenCallRequest(**{**good, **changes}), m.OpenCallReply
                )
            assert caught.value.code == code
            assert reserved(daemon) == 0
        unknown = m.LinkCallRequest(session=node.session, call="0" * 32, outgoing={})
        with pytest.raises(GenieError) as caught:
            node.channel.call("LinkCall", unknown, m.Empty)
        assert caught.value.code == "GEN0431"
        closing = m.CallRequestId(session=node.session, call="0" * 32)
        node.channel.call("CloseCall", closing, m.Empty)


def test_a_reply_that_cannot_be_sent_ends_the_request(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    with connect(daemon.endpoint) as session:
        loaded = session.install(made.path)
        call = channel(session, loaded, {"x": X})
        node = link(session)
        gone: DMAHandle = call._reply_handle
        node.data.deregister(gone)
        call._mine.remove(gone)
        head = node.data.post(call._source, call._target)
        head.result(10.0)  # without a valid record: refused, and the refusal cannot be delivered
        until(lambda: reserved(daemon) == 0)
        call.close()
        warm(session, {"x": X})
        assert session.run({"x": X}).attempts == 1
