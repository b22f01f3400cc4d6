"""What a user sees of a run that fails, kept under golden/errors/run: each provoked for real."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from genie.cli.render import render_error
from genie.client import Session, connect
from genie.client.endpoints import parse_on
from genie.client.files import load_array, save_tensors
from genie.client.session import load_plan
from genie.client.tensors import Tensor
from genie.plan.store import write
from genie.testing.snapshots import golden_files
from genie_runtime import endpoint
from genie_runtime.config import Limits
from genie_runtime.devices import parse_devices
from genie_runtime.ledger import Ledger
from genie_runtime.ledger_rules import RunKey
from genie_runtime.outputs import OutputRecord
from genie_runtime.plans import install
from genie_schemas.errors import GenieError
from tests.daemons import home
from tests.golden.support import GOLDEN
from tests.plans_by_hand import slow, two_layers

__all__ = ["home"]

X = np.ones((2, 16), np.float32)
NAME = "0" * 31 + "1"
KEY = RunKey("nightly", "sha256:plan", "forward", "sha256:inputs")


def opened(folder: Path, **more: Any) -> Session:
    session = connect(devices=["cpu:memory=64MiB"])
    session.install(two_layers(folder, **more).path)
    return session


def entrypoint_unknown(folder: Path) -> None:
    with opened(folder) as session:
        session.run({"x": X}, entrypoint="foward")


def no_plan(folder: Path) -> None:
    with connect() as session:
        session.run({"x": X})


def run_id_malformed(folder: Path) -> None:
    with opened(folder) as session:
        session.run({"x": X}, run_id="last night")


def run_id_reused(folder: Path) -> None:
    with opened(folder) as session:
        session.run({"x": X}, run_id="nightly")
        session.run({"x": X + 1}, run_id="nightly")


def run_unknown(folder: Path) -> None:
    with opened(folder) as session:
        session.cancel("nightly")


def deadline(folder: Path) -> None:
    with connect(devices=["cpu"]) as session:
        session.install(slow(folder, ops=4000).path)
        session.run({"x": np.eye(512, dtype=np.float32)}, deadline=0.5, run_id="nightly")


def cancelled(folder: Path) -> None:
    with connect(devices=["cpu"]) as session:
        session.install(slow(folder, ops=4000).path)
        done = threading.Event()

        def cancel() -> None:
            while not done.wait(0.05):
                try:
                    session.cancel("nightly")
                except GenieError:
                    continue  # it has not begun

        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            session.run({"x": np.eye(512, dtype=np.float32)}, run_id="nightly")
        finally:
            done.set()
            thread.join(20)


def device_too_small(folder: Path) -> None:
    with connect(devices=["cpu:memory=4KiB"]) as session:
        session.install(two_layers(folder).path)
        session.run({"x": X})


def device_of_another_kind(folder: Path) -> None:
    with connect(devices=["cpu"]) as session:
        session.install(two_layers(folder, kind="cuda").path)


def endpoints_mixed(folder: Path) -> None:
    parse_on(["d0=gpu1.example.org:7000", "gpu2.example.org:7000"])


def endpoint_malformed(folder: Path) -> None:
    endpoint.parse("gpu1.example.org")


def device_malformed(folder: Path) -> None:
    parse_devices(["gpu:0"])


def plan_not_the_one_announced(folder: Path) -> None:
    loaded = load_plan(two_layers(folder).path)
    install(loaded.installed.text, "sha256:" + "0" * 64, Limits())


def plan_too_large(folder: Path) -> None:
    loaded = load_plan(two_layers(folder).path)
    install(loaded.installed.text, loaded.digest, replace(Limits(), plan_ops=1))


def constant_changed(folder: Path) -> None:
    made = two_layers(folder)
    (weights,) = folder.glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with connect() as session:
        session.install(made.path)


def kept_name_unknown(folder: Path) -> None:
    with opened(folder) as session:
        session.run({}, resident={"x": NAME})


def kept_size_differs(folder: Path) -> None:
    with opened(folder) as session:
        session.run({"x": X}, keep={"h": NAME})
        session.run({}, resident={"x": NAME})


def kept_name_taken(folder: Path) -> None:
    with opened(folder) as session:
        session.run({"x": X}, keep={"h": NAME})
        session.run({"x": X}, keep={"h": NAME})


def input_file(folder: Path) -> None:
    (folder / "x.npy").write_bytes(b"no array")
    load_array(folder / "x.npy")


def output_file(folder: Path) -> None:
    save_tensors(folder / "none" / "y.safetensors", {"y": Tensor("float32", X)})


def published(folder: Path, key: RunKey = KEY, **more: Any) -> Ledger:
    ledger = Ledger(folder / "state", **more)
    accepted = ledger.accept(key, threads=1)
    assert accepted is not None
    ledger.publish(accepted, [OutputRecord("y", "f32[2]", memoryview(b"12345678"))])
    return ledger


def result_removed(folder: Path) -> None:
    ledger = published(folder, max_age=-1.0)
    ledger.sweep()
    ledger.recall(KEY)


def result_damaged(folder: Path) -> None:
    recall = published(folder).recall(KEY)
    assert recall.stored is not None
    recall.stored.path.write_bytes(b"87654321")
    recall.stored.read()


def state_folder(folder: Path) -> None:
    (folder / "state").write_text("")
    Ledger(folder / "state")


def ledger_foreign(folder: Path) -> None:
    (folder / "ledger.sqlite").write_bytes(b"no database at all, but long enough to look" * 40)
    Ledger(folder)


def plan_is_a_folder(folder: Path) -> None:
    made = two_layers(folder)
    (weights,) = folder.glob("*.safetensors")
    write(made.plan, weights, folder)


def constants_in_the_way(folder: Path) -> None:
    made = two_layers(folder)
    (weights,) = folder.glob("*.safetensors")
    (folder / "out").mkdir()
    (folder / "out" / weights.name).write_bytes(b"other bytes")
    write(made.plan, weights, folder / "out" / "x.plan.json")


CASES: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    "plan-not-announced": ("GEN0304", 4, plan_not_the_one_announced),
    "plan-is-a-folder": ("GEN0330", 1, plan_is_a_folder),
    "constants-in-the-way": ("GEN0331", 1, constants_in_the_way),
    "input-file": ("GEN0406", 2, input_file),
    "entrypoint-unknown": ("GEN0407", 2, entrypoint_unknown),
    "output-file": ("GEN0408", 1, output_file),
    "run-id-reused": ("GEN0410", 1, run_id_reused),
    "result-removed": ("GEN0411", 1, result_removed),
    "device-too-small": ("GEN0412", 1, device_too_small),
    "deadline": ("GEN0414", 7, deadline),
    "cancelled": ("GEN0415", 1, cancelled),
    "run-unknown": ("GEN0416", 1, run_unknown),
    "run-id-malformed": ("GEN0417", 2, run_id_malformed),
    "device-of-another-kind": ("GEN0420", 1, device_of_another_kind),
    "endpoints-mixed": ("GEN0422", 2, endpoints_mixed),
    "result-damaged": ("GEN0424", 1, result_damaged),
    "constant-changed": ("GEN0425", 4, constant_changed),
    "no-plan": ("GEN0426", 1, no_plan),
    "kept-name-unknown": ("GEN0427", 1, kept_name_unknown),
    "kept-size-differs": ("GEN0427", 1, kept_size_differs),
    "kept-name-taken": ("GEN0427", 1, kept_name_taken),
    "state-folder": ("GEN0506", 1, state_folder),
    "ledger-foreign": ("GEN0507", 1, ledger_foreign),
    "plan-too-large": ("GEN0511", 1, plan_too_large),
    "device-malformed": ("GEN0512", 2, device_malformed),
    "endpoint-malformed": ("GEN0514", 2, endpoint_malformed),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_clear(
    name: str, home: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    code, status, provoke = CASES[name]
    with pytest.raises(GenieError) as caught:
        provoke(tmp_path)
    error = caught.value
    assert (error.code, error.exit_code) == (code, status)
    assert error.remedy
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "run", "txt"))
    text = render_error(error, colour=False).replace(f"{tmp_path}/", "").replace(str(tmp_path), ".")
    assert text + "\n" == golden(name=name)
