"""genied as a process: its socket, its state, who may connect, and how it ends."""

from __future__ import annotations

import contextlib
import json
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie.client import connect
from genie.client.admin import cancel, status
from genie_schemas.errors import GenieError
from tests.daemons import Daemons, until
from tests.plans_by_hand import expected, slow, two_layers
from tests.runtime.support import X, ended, one_thread
from tests.runtime.test_faults import held, in_mid_run


def test_serves_and_drains(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    daemon = daemons.start()
    path = Path(daemon.endpoint.removeprefix("unix://"))
    for name in (path, Path(f"{path}.data")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o600
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        result = session.run({"x": X})
    found = status(daemon.endpoint)
    assert (found.runs, found.plans, found.sessions) == (1, 1, 0)
    assert found.telemetry["attempts"] == 1
    assert found.telemetry["bytes_in"] >= X.nbytes
    assert [d.kind for d in found.devices] == ["cpu"]
    assert found.devices[0].reserved_bytes == 0
    wanted = one_thread(lambda: expected(made, X))
    assert all(result.outputs[n].tobytes() == wanted[n].tobytes() for n in wanted)
    assert daemon.stop() == 0
    assert not path.exists()
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    assert [line["event"] for line in lines if line["logger"] == "genied"] == [
        *("listening", "draining", "drained")
    ]
    with pytest.raises(GenieError) as caught:
        connect(daemon.endpoint)
    assert caught.value.exit_code == 5


def test_only_what_is_missing_travels(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path, hidden=4096)
    size = sum(w.nbytes for w in made.weights.values())
    daemon = daemons.start()
    sent = []
    for _ in range(2):
        with connect(daemon.endpoint) as session:
            session.install(made.path)
            session.run({"x": X})
            sent.append(session.traffic()["sent"])
    assert sent[0] > size
    assert sent[1] < 8192 + X.nbytes


def test_plans_share_weights_by_digest(daemons: Daemons, tmp_path: Path) -> None:
    """Another plan with the same weights, in another session, moves and holds none of them."""
    sent, held = [], []
    daemon = daemons.start()
    with contextlib.ExitStack() as sessions:
        for least in (1, 2):
            folder = tmp_path / str(least)
            folder.mkdir()
            made = two_layers(folder, hidden=4096, least=least)
            session = sessions.enter_context(connect(daemon.endpoint))
            session.install(made.path)
            session.run({"x": X})
            sent.append(session.traffic()["sent"])
            held.append(status(daemon.endpoint).devices[0].constant_bytes)
    size = sum(w.nbytes for w in made.weights.values())
    assert status(daemon.endpoint).plans == 2
    assert sent[0] >= size
    assert sent[1] < size / 10
    assert size <= held[0] == held[1]


def test_a_changed_weights_file_is_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    daemon = daemons.start()
    for where in (None, daemon.endpoint):
        with connect(where) as session, pytest.raises(GenieError) as caught:
            session.install(made.path)
        assert caught.value.code == "GEN0425"
        assert caught.value.exit_code == 4


def test_runs_over_the_same_daemons_in_opposite_order_do_not_block(
    daemons: Daemons, tmp_path: Path
) -> None:
    made = two_layers(tmp_path, devices=2, hidden=512)
    ends = [daemons.start(f"d{n}").endpoint for n in (0, 1)]
    results: list[Any] = []

    def many(order: list[str]) -> None:
        with connect(order) as session:
            session.install(made.path)
            for _ in range(10):
                results.append(session.run({"x": X}, deadline=60.0).outputs["y"].tobytes())

    threads = [threading.Thread(target=many, args=(order,)) for order in (ends, ends[::-1]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 40
    assert len(set(results)) == 1


def test_a_plan_too_large_for_the_device_is_refused(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=2)
    daemon = daemons.start(device="cpu:memory=1MiB")
    assert [d.memory_bytes for d in status(daemon.endpoint).devices] == [1 << 20]
    for session in (connect(daemon.endpoint), connect(devices=["cpu:memory=1MiB"])):
        with session, pytest.raises(GenieError) as caught:
            session.install(made.path)
        assert caught.value.code == "GEN0412"
        assert "MiB" in caught.value.message


def test_a_run_waits_for_memory_that_another_holds(tmp_path: Path, daemons: Daemons) -> None:
    made = slow(tmp_path, ops=100)
    needs = made.plan.devices["d0"].needs
    tight = needs + (1 << 20)  # room for one run at a time
    daemon = daemons.start(device=f"cpu:memory={tight}B")
    x = np.eye(512, dtype=np.float32)
    outcomes: list[str] = []

    def one(deadline: float) -> None:
        with connect(daemon.endpoint) as session:
            session.install(made.path)
            try:
                session.run({"x": x}, deadline=deadline)
                outcomes.append("done")
            except GenieError as error:
                outcomes.append(error.code)

    threads = [threading.Thread(target=one, args=(120.0,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    assert outcomes == ["done"] * 3
    found = status(daemon.endpoint)
    assert found.telemetry["peak_bytes"] <= tight


def test_a_run_is_cancelled_by_its_id(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=2000)
    daemon = daemons.start()
    with pytest.raises(GenieError) as caught:
        cancel("run-1", daemon.endpoint)
    assert caught.value.code == "GEN0416"
    with connect(daemon.endpoint) as session:
        session.install(made.path)
        in_mid_run(daemon, lambda: print(cancel("run-1", daemon.endpoint)))
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.eye(512, dtype=np.float32)}, run_id="run-1")
        assert caught.value.code == "GEN0415"
        until(lambda: held(daemon)[1] == 0)
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.eye(512, dtype=np.float32)}, run_id="run-2", deadline=0.7)
        assert caught.value.exit_code == 7
        until(lambda: held(daemon)[1] == 0)


def test_a_second_caller_of_a_run_id_waits_for_the_first(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=200)
    daemon = daemons.start()
    x = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    results: list[Any] = []

    def ask() -> None:
        with connect(daemon.endpoint) as session:
            session.install(made.path)
            results.append(session.run({"x": x}, run_id="run-1", deadline=120.0))

    first = threading.Thread(target=ask)
    second = in_mid_run(daemon, ask)
    first.start()
    first.join(120)
    second.join(120)
    assert sorted(r.replayed for r in results) == [False, True]
    assert results[0].outputs["y"].tobytes() == results[1].outputs["y"].tobytes()
    assert status(daemon.endpoint).runs == 1


def test_sigterm_lets_a_run_finish_and_takes_no_new_one(daemons: Daemons, tmp_path: Path) -> None:
    made = slow(tmp_path, ops=600)
    daemon = daemons.start()
    refused: list[str] = []

    def terminate() -> None:
        daemon.process.terminate()
        until(lambda: '"draining"' in daemon.log)
        try:
            connect(daemon.endpoint).close()
        except GenieError as error:
            refused.append(error.code)

    with connect(daemon.endpoint) as session:
        session.install(made.path)
        thread = in_mid_run(daemon, terminate)
        result = session.run({"x": np.eye(512, dtype=np.float32)})
        assert result.attempts == 1
        thread.join(20)
    assert refused == ["GEN0510"]
    ended(daemon, 0, '"drained"')
