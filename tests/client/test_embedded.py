"""The runtime in one's own process: equal bits, recorded results, and several processes at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genie.client import RunResult, Session, connect
from genie_runtime.embedded import embedded_node, state_home
from genie_runtime.ledger import Ledger
from genie_schemas.errors import GenieError
from tests.plans_by_hand import HandMade, expected, slow, two_layers

X = np.random.default_rng(3).standard_normal((3, 16), dtype=np.float32)


def same(result: RunResult, wanted: dict[str, Any]) -> bool:
    return all(result.outputs[n].tobytes() == wanted[n].tobytes() for n in wanted)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_plan_gives_the_bits_of_torch(tmp_path: Path, devices: int) -> None:
    made = two_layers(tmp_path, devices=devices)
    before = torch.get_num_threads()
    with connect() as session:
        session.install(made.path)
        results = {n: session.run({"x": X[:n]}) for n in (1, 2, 3)}
        torch.set_num_threads(session.links[0].threads)
        for n, result in results.items():
            assert same(result, expected(made, X[:n]))
    torch.set_num_threads(before)
    result = results[3]
    assert result.literals == {"label": 7}
    assert result.outputs["hidden"].shape == (3, 32)
    assert (result.attempts, result.replayed) == (1, False)
    assert result.bytes == {"sent": 0, "received": 0}
    assert result.transports["client->d0"] == "in-process"
    if devices == 2:
        assert result.transports["d0->d1"] == "in-process"
    assert result.peak_bytes["d0"] <= made.plan.devices["d0"].needs


def test_outputs_belong_to_the_caller(tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    with connect() as session:
        session.install(made.path)
        first = session.run({"x": X})
        kept = first.outputs["y"].copy()
        first.outputs["hidden"][:] = 0
        session.run({"x": X + 1})
        assert np.array_equal(first.outputs["y"], kept)
    assert np.array_equal(first.outputs["y"], kept)


def test_a_run_id_names_one_result_for_ever(tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    with connect() as session:
        session.install(made.path)
        first = session.run({"x": X}, run_id="run-1")
    with connect() as session:
        session.install(made.path)
        again = session.run({"x": X}, run_id="run-1")
        assert (first.replayed, again.replayed) == (False, True)
        assert same(again, first.outputs)
        assert again.attempts == 0
        with pytest.raises(GenieError) as caught:
            session.run({"x": X + 1}, run_id="run-1")
        assert (caught.value.code, caught.value.exit_code) == ("GEN0410", 1)
        for bad in ("", "-x", "a b", "x" * 129, "é"):
            with pytest.raises(GenieError) as caught:
                session.run({"x": X}, run_id=bad)
            assert (caught.value.code, caught.value.exit_code) == ("GEN0417", 2)
    rows = Ledger(state_home() / "embedded").rows()
    assert [(r["run_id"], r["state"], r["publications"]) for r in rows] == [
        ("run-1", "published", 1)
    ]


def test_runs_without_a_name_leave_nothing_on_disk(tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    with connect() as session:
        session.install(made.path)
        session.run({"x": X})
    assert not state_home().exists()


def test_several_processes_share_the_ledger(tmp_path: Path) -> None:
    made = two_layers(tmp_path)
    code = (
        "import sys, numpy as np; from genie.client import connect\n"
        "x = np.load(sys.argv[2])\n"
        "with connect() as s:\n"
        "    s.install(sys.argv[1])\n"
        "    r = s.run({'x': x}, run_id='shared')\n"
        "    print(r.replayed, r.tensors['y'].sha256())\n"
    )
    np.save(tmp_path / "x.npy", X)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(made.path), str(tmp_path / "x.npy")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [child.communicate(timeout=120)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sorted(replayed for replayed, _ in said) == ["False", "True", "True"]
    assert len({digest for _, digest in said}) == 1


def test_a_deadline_ends_a_run_and_frees_its_memory(tmp_path: Path) -> None:
    made = slow(tmp_path, ops=4000)
    node = embedded_node(devices=["cpu"])
    session = _session(node)
    session.install(made.path)
    with pytest.raises(GenieError) as caught:
        session.run({"x": np.eye(512, dtype=np.float32)}, deadline=0.5, run_id="late")
    assert (caught.value.code, caught.value.exit_code) == ("GEN0414", 7)
    for _ in range(600):
        if node.core.budget.usage("d0")[0] == 0:
            break
        threading.Event().wait(0.05)
    assert node.core.budget.usage("d0")[0] == 0
    assert node.core.pools["d0"].stats().used == node.core.budget.usage("d0")[1]
    session.close()
    (row,) = Ledger(state_home() / "embedded").rows()
    assert row["state"] == "failed"
    assert "GEN0414" in row["error"]


def _session(node: Any) -> Session:
    from genie.client.local import EmbeddedLink
    from genie.client.opening import hello

    return Session([(None, EmbeddedLink(node, hello()))])


def test_another_thread_cancels_a_run(tmp_path: Path) -> None:
    made = slow(tmp_path, ops=4000)
    node = embedded_node(devices=["cpu"])
    session = _session(node)
    session.install(made.path)

    def cancel() -> None:
        for _ in range(1000):
            if any(run.state == "running" for run in node.status().active):
                break
            threading.Event().wait(0.01)
        session.cancel("run-1")

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(GenieError) as caught:
        session.run({"x": np.eye(512, dtype=np.float32)}, run_id="run-1")
    thread.join(20)
    assert caught.value.code == "GEN0415"
    with pytest.raises(GenieError) as caught:
        session.cancel("run-1")
    assert caught.value.code == "GEN0416"
    session.close()


def test_a_failing_operator_is_the_users_error_and_is_not_retried(tmp_path: Path) -> None:
    made = _gather(tmp_path)
    with connect() as session:
        session.install(made.path)
        good = session.run({"x": np.array([1, 0], np.int64)})
        assert good.outputs["y"].tolist() == [2.0, 1.0]
        with pytest.raises(GenieError) as caught:
            session.run({"x": np.array([1, 99], np.int64)}, run_id="bad")
        assert caught.value.exit_code == 1
        assert caught.value.context["attempts"] == 1
        again = session.run({"x": np.array([1, 0], np.int64)})
        assert again.outputs["y"].tolist() == [2.0, 1.0]


def _gather(folder: Path) -> HandMade:
    """x i64[2] → y f32[2] = table[x]."""
    from tests.plans_by_hand import finish, policy, value

    table = {"table": np.array([[1.0], [2.0], [3.0]], np.float32)}
    program = {
        "inputs": [{"name": "x", "type": "i64[2]"}, {"name": "t", "type": "f32[3,1]"}],
        "outputs": [{"name": "y", "type": "f32[2]"}],
        "scratch_bytes": "64",
        "ops": [
            {"out": ["e"], "op": "aten.embedding.default", "args": [{"v": "t"}, {"v": "x"}]},
            {"out": ["y"], "op": "aten.sum.dim_IntList", "args": [{"v": "e"}, [1]]},
        ],
    }
    steps = [
        {"id": "load@d0", "kind": "load", "device": "d0", "reads": ["table"]},
        {
            "id": "compute@d0",
            "kind": "compute",
            "device": "d0",
            "program": "p",
            "reads": ["x", "table"],
            "writes": ["y"],
        },
        {"id": "return@d0", "kind": "return", "device": "d0", "reads": ["y"]},
    ]
    data = {
        "name": "gather",
        "dims": {},
        "devices": {"d0": {"kind": "cpu", "needs": 0}},
        "entrypoints": {
            "forward": {
                "inputs": [{"name": "x", "type": "i64[2]", "device": "d0"}],
                "outputs": [{"name": "y", "value": "y"}],
                "steps": [step["id"] for step in steps],
            }
        },
        "programs": {"p": program},
        "values": {"x": value("i64[2]", "d0", "16"), "y": value("f32[2]", "d0", "8")},
        "policies": policy(),
        "steps": steps,
    }
    return finish(folder, data, table)


def test_many_plans_share_constants_and_the_unused_make_room(tmp_path: Path) -> None:
    plans = []
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        plans.append(two_layers(tmp_path / str(seed), hidden=4096, seed=seed))
    needs = plans[0].plan.devices["d0"].needs
    node = embedded_node(devices=[f"cpu:memory={2 * needs}B"])
    for made in [*plans, plans[0]]:
        session = _session(node)
        session.install(made.path)
        session.run({"x": X})
        link = session.links[0]
        node.end_session(link._session, GenieError("GEN0415", "done"))  # type: ignore[attr-defined]
        reserved, constants, _ = node.core.budget.usage("d0")
        assert reserved == 0
        assert constants <= 2 * needs
    assert len(node.core.library) < 4
    node.close()


def test_without_a_plan_nothing_runs(tmp_path: Path) -> None:
    with connect() as session, pytest.raises(GenieError) as caught:
        session.run({})
    assert caught.value.code == "GEN0426"


def test_a_plan_for_a_gpu_is_refused_where_there_is_none(tmp_path: Path) -> None:
    made = two_layers(tmp_path, kind="cuda")
    with connect(devices=["cpu"]) as session, pytest.raises(GenieError) as caught:
        session.install(made.path)
    assert caught.value.code == "GEN0420"
    assert "cuda" in caught.value.message
