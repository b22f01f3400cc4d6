"""What a user sees of a plan that cannot be used, kept under golden/errors/plan."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from genie.cli.render import render_error
from genie.plan.check import verify_file
from genie.testing.snapshots import golden_files
from genie_schemas import canonical, optable, writer
from genie_schemas.errors import GenieError
from tests.golden.support import GOLDEN, ROOT

SOURCE = GOLDEN / "compat" / "1.0" / "digits-two.plan.json"
TEXT = SOURCE.read_text(encoding="utf-8")
DATA: dict[str, Any] = canonical.loads(TEXT)
WEIGHTS = next(iter(DATA["constants"].values()))["source"].partition("#")[0]

Edit = Callable[[dict[str, Any]], object]


def step(data: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in data["steps"] if s["id"] == name)
    return found


def op(data: dict[str, Any], name: str) -> dict[str, Any]:
    """The first call of an operator."""
    ops = (o for p in data["programs"].values() for o in p["ops"])
    found: dict[str, Any] = next(o for o in ops if o["op"] == name)
    return found


def without(data: dict[str, Any], name: str) -> None:
    data["steps"].remove(step(data, name))
    data["entrypoints"]["forward"]["steps"].remove(name)


def rewired(data: dict[str, Any]) -> None:
    """The second device reads what lies on the first."""
    move = next(s for s in data["steps"] if s["kind"] == "transfer")
    without(data, move["id"])
    for other in data["steps"]:
        if other["kind"] in ("compute", "free"):
            other["reads"] = [
                move["reads"][0] if n == move["writes"][0] else n for n in other["reads"]
            ]
    del data["values"][move["writes"][0]]


def swapped(data: dict[str, Any]) -> None:
    """A device computes before it has loaded."""
    names = data["entrypoints"]["forward"]["steps"]
    first, second = names.index("stem/load@d0"), names.index("stem/compute@d0")
    for items in (names, data["steps"]):
        items[first], items[second] = items[second], items[first]


def writes_to_its_input(data: dict[str, Any]) -> None:
    """A program changes what other steps read."""
    program = next(iter(data["programs"].values()))
    info = optable.lookup("aten.relu_.default")
    assert info is not None
    data["opset"]["schemas"][info.name] = info.schema
    call = {"out": [None], "op": info.name, "args": [{"v": program["inputs"][0]["name"]}]}
    program["ops"].insert(0, call)


# name → (exit status, edit); keys and digest are made to fit afterwards.
EDITS: dict[str, tuple[int, Edit]] = {
    "operator-unknown": (4, lambda d: op(d, "aten.relu.default").update(op="aten.rleu.default")),
    "operator-not-allowed": (
        4,
        lambda d: op(d, "aten.relu.default").update(op="aten.from_file.default"),
    ),
    "operator-argument": (4, lambda d: op(d, "aten.relu.default")["args"].append({"s": "fast"})),
    "transfer-missing": (4, rewired),
    "load-missing": (4, lambda d: without(d, "stem/load@d0")),
    "steps-swapped": (4, swapped),
    "name-twice": (4, lambda d: step(d, "head/compute@d1").update(writes=["image"])),
    "memory-wrong": (4, lambda d: d["devices"]["d0"].update(needs=1)),
    "device-too-small": (4, lambda d: d["devices"]["d1"].update(memory_bytes=4096)),
    "policy-unknown": (4, lambda d: step(d, "stem/compute@d0").update(policy="eager")),
    "feature-missing": (8, lambda d: d["requires"].append("state.paged")),
    "path-escapes": (
        4,
        lambda d: d["constants"]["head.bias"].update(source="../digits.safetensors#head.bias"),
    ),
    "constant-digest": (
        4,
        lambda d: d["constants"]["head.bias"].update(digest="blake3:" + "0" * 64),
    ),
    "constant-unknown": (
        4,
        lambda d: d["constants"]["head.bias"].update(source=f"{WEIGHTS}#head.bais"),
    ),
    "step-twice": (
        4,
        lambda d: d["entrypoints"]["forward"]["steps"].append(d["steps"][-1]["id"]),
    ),
    "step-left-out": (4, lambda d: d["entrypoints"]["forward"]["steps"].pop()),
    "operator-of-another-torch": (
        8,
        lambda d: d["opset"]["schemas"].update({"aten.relu.default": "0" * 16}),
    ),
    "value-bytes": (4, lambda d: next(iter(d["values"].values())).update(bytes="batch*3")),
    "program-writes-to-its-input": (4, writes_to_its_input),
    "field-unknown": (4, lambda d: d["devices"]["d0"].update(memroy=1)),
    "field-types": (
        4,
        lambda d: (d["dims"]["batch"].update(max="many"), d["devices"]["d0"].update(kind="gpu")),
    ),
}


def edited(edit: Edit) -> str:
    """The plan after an edit by somebody who knows how keys and digests are made."""
    data = copy.deepcopy(DATA)
    edit(data)
    keys = {key: writer.program_key(program) for key, program in data["programs"].items()}
    data["programs"] = {keys[k]: p for k, p in data["programs"].items()}
    for item in data["steps"]:
        if item.get("program") in keys:
            item["program"] = keys[item["program"]]
    data["plan_digest"] = writer.plan_digest(data)
    return json.dumps(data, indent=1)


def one_digit_changed() -> str:
    place = next(i for i, c in enumerate(TEXT) if c.isdigit() and i > TEXT.index('"bytes"'))
    return TEXT[:place] + ("1" if TEXT[place] != "1" else "2") + TEXT[place + 1 :]


def program_under_another_key() -> str:
    """A program was edited, and its key, which is its digest, was not."""
    data = copy.deepcopy(DATA)
    op(data, "aten.relu.default")["out"] = ["other"]
    data["plan_digest"] = writer.plan_digest(data)
    return json.dumps(data, indent=1)


# name → (exit status, content)
CONTENTS: dict[str, tuple[int, str | bytes]] = {
    "truncated": (4, TEXT[: len(TEXT) // 2]),
    "empty": (4, ""),
    "one-digit-changed": (4, one_digit_changed()),
    "program-key": (4, program_under_another_key()),
    "newer": (
        8,
        TEXT.replace('"format_version": "1.0"', '"format_version": "9.0"').replace(
            '"min_reader": "1.0"', '"min_reader": "9.0"'
        ),
    ),
    "no-plan": (4, '{"format": "something.else"}'),
    "no-text": (4, b"\x80\x00\x01"),
    "key-twice": (4, TEXT.replace('"loops": {}', '"loops": {}, "loops": {}')),
    "float": (4, TEXT.replace('"min": 1,', '"min": 1.0,')),
    "deep": (4, '{"format": ' + "[" * 100_000 + "]" * 100_000 + "}"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the weights of the plan, in which errors name files relatively."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "plans" / "digits" / "digits.safetensors", tmp_path / WEIGHTS)
    return tmp_path


def check(content: str | bytes, status: int, name: str, snapshot: SnapshotAssertion) -> None:
    path = Path("model.plan.json")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(GenieError) as caught:
        verify_file(path)
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "plan", "txt"))
    assert render_error(caught.value, colour=False) + "\n" == golden(name=name)
    assert caught.value.exit_code == status


def test_the_plan_is_sound_before_it_is_edited() -> None:
    Path("model.plan.json").write_text(edited(lambda data: None))
    assert verify_file(Path("model.plan.json")).checked


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_plan(name: str, snapshot: SnapshotAssertion) -> None:
    status, edit = EDITS[name]
    check(edited(edit), status, name, snapshot)


@pytest.mark.parametrize("name", CONTENTS)
def test_another_file(name: str, snapshot: SnapshotAssertion) -> None:
    status, content = CONTENTS[name]
    check(content, status, name, snapshot)


def test_no_file(snapshot: SnapshotAssertion) -> None:
    with pytest.raises(GenieError) as caught:
        verify_file(Path("absent.plan.json"))
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "plan", "txt"))
    assert render_error(caught.value, colour=False) + "\n" == golden(name="file-missing")


def test_no_weights(folder: Path, snapshot: SnapshotAssertion) -> None:
    (folder / WEIGHTS).unlink()
    check(TEXT, 4, "weights-missing", snapshot)


def test_other_weights(folder: Path, snapshot: SnapshotAssertion) -> None:
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (folder / WEIGHTS).write_bytes(raw)
    check(TEXT, 4, "weights-changed", snapshot)


def test_cut_weights(folder: Path, snapshot: SnapshotAssertion) -> None:
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[: len(raw) // 2])
    check(TEXT, 4, "weights-cut", snapshot)


def test_linked_weights(folder: Path, snapshot: SnapshotAssertion) -> None:
    (folder / WEIGHTS).rename(folder / "elsewhere")
    (folder / WEIGHTS).symlink_to("elsewhere")
    check(TEXT, 4, "weights-linked", snapshot)
