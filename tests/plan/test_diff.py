"""Differences between plans: what changed is named, and nothing that is executed goes unsaid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from genie.plan.diff import Change, diff_plans
from genie.plan.diff_text import difference_json, difference_text
from genie_schemas.plan import ExecutionPlan
from tests.plan.support import data_of, edited, ops, step

Edit = Callable[[dict[str, Any]], object]
DIGITS = data_of("digits")


def same(data: dict[str, Any]) -> None:
    """No edit."""


def text(a: ExecutionPlan, b: ExecutionPlan) -> str:
    return difference_text(diff_plans(a, b), "a", "b")


def changes(edit: Edit, name: str = "digits") -> list[Change]:
    data = data_of(name)
    return list(diff_plans(edited(data, same), edited(data, edit)).changes)


def test_a_plan_equals_itself() -> None:
    plan = edited(DIGITS, same)
    found = diff_plans(plan, plan)
    assert found.equal
    assert difference_json(found) == {"equal": True, "changes": []}
    assert difference_text(found, "a", "b") == f"equal: {plan.plan_digest[:19]}\n"


def test_what_nobody_executes_is_mentioned_and_no_difference() -> None:
    def edit(data: dict[str, Any]) -> None:
        data["provenance"]["compiler"] = "0.2.0"
        data["advisory"]["placement"] = []

    found = diff_plans(edited(DIGITS, same), edited(DIGITS, edit))
    assert found.equal
    assert "provenance and advisory differ" in difference_text(found, "a", "b")


def test_moving_layers_to_another_device(snapshot: SnapshotAssertion) -> None:
    a, b = edited(DIGITS, same), edited(data_of("digits-two"), same)
    assert text(a, b) == snapshot(name="one device to two")
    assert text(b, a) == snapshot(name="two devices to one")


def replaced_activation(data: dict[str, Any]) -> None:
    op = ops(data, "layer1/compute@d0")[2]
    op.update(op="aten.gelu.default", out=["gelu"])
    ops(data, "layer1/compute@d0")[3]["args"][0] = {"v": "gelu"}


def added_operator(data: dict[str, Any]) -> None:
    found = ops(data, "head/compute@d0")
    found.append({"out": ["softmax"], "op": "aten.softmax.int", "args": [{"v": "linear"}, 1]})


# what is edited → (edit, what part names it, a text that says it)
EDITS: dict[str, tuple[Edit, str, str]] = {
    "dimension": (
        lambda d: d["dims"]["batch"].update(max=64),
        "dimension",
        "1..512 -> 1..64",
    ),
    "device kind": (lambda d: d["devices"]["d0"].update(kind="cuda"), "device", "any -> cuda"),
    "device memory": (
        lambda d: d["devices"]["d0"].update(memory_bytes=2**30),
        "device",
        "memory unlimited -> 1.0 GiB",
    ),
    "peak by a byte": (
        lambda d: d["devices"]["d0"].update(needs=d["devices"]["d0"]["needs"] + 1),
        "device",
        "(+1 B)",
    ),
    "device added": (
        lambda d: d["devices"].update(d9={"kind": "cpu", "needs": 0}),
        "device",
        "cpu, needs 0 B",
    ),
    "policy": (
        lambda d: d["policies"]["default"].update(max_attempts=1),
        "policy",
        '"max_attempts": 1',
    ),
    "policy of a step": (
        lambda d: step(d, "head/compute@d0").update(policy="eager"),
        "step",
        "policy default -> eager",
    ),
    "priority": (
        lambda d: step(d, "head/compute@d0").update(priority="decode"),
        "step",
        "priority activation -> decode",
    ),
    "effect": (
        lambda d: step(d, "head/compute@d0").update(effect={"state": "s", "expects": "entry"}),
        "step",
        'effect pure -> {"state": "s", "expects": "entry"}',
    ),
    "waiting": (
        lambda d: step(d, "head/compute@d0").update(after=["stem/compute@d0"]),
        "step",
        "waits for stem/compute@d0 too",
    ),
    "input type": (
        lambda d: d["entrypoints"]["forward"]["inputs"][0].update(type="f64[batch,1,8,8]"),
        "forward input",
        "f32[batch,1,8,8] on d0 -> f64[batch,1,8,8] on d0",
    ),
    "output renamed": (
        lambda d: d["entrypoints"]["forward"]["outputs"][0].update(name="logits"),
        "forward output",
        "head.linear",
    ),
    "value type": (
        lambda d: d["values"]["stem.2.relu"].update(type="f16[batch,24,8,8]"),
        "value",
        "f32[batch,24,8,8] -> f16[batch,24,8,8]",
    ),
    "value bytes": (
        lambda d: d["values"]["stem.2.relu"].update(bytes="batch*7"),
        "value",
        "batch*6144 bytes -> batch*7",
    ),
    "constant content": (
        lambda d: d["constants"]["head.bias"].update(digest="blake3:" + "0" * 64),
        "constants",
        "1, 40 B with other content",
    ),
    "constant type": (
        lambda d: d["constants"]["head.bias"].update(type="f64[10]"),
        "constants",
        "f32[10] -> f64[10]",
    ),
    "constants file": (
        lambda d: d["constants"]["head.bias"].update(source="o.safetensors#head.bias"),
        "constants",
        "-> o.safetensors",
    ),
    "constant key": (
        lambda d: d["constants"]["head.bias"].update(
            source=d["constants"]["head.bias"]["source"].replace("#head", "#tail")
        ),
        "constants",
        "#tail.bias",
    ),
    "operator added": (added_operator, "program", "+ softmax = aten.softmax.int(linear, 1)"),
    "operator replaced": (
        replaced_activation,
        "program",
        "+ gelu = aten.gelu.default(norm1.batch_norm)",
    ),
    "operator argument": (
        lambda d: ops(d, "stem/compute@d0")[0]["args"].__setitem__(3, [2, 2]),
        "program",
        "[2, 2], [1, 1])",
    ),
    "operators in another order": (
        lambda d: ops(d, "layer2/compute@d0").reverse(),
        "program",
        "the same calls in another order",
    ),
    "scratch": (
        lambda d: d["programs"][step(d, "head/compute@d0")["program"]].update(scratch_bytes="7"),
        "program",
        "-> 7",
    ),
    "torch": (
        lambda d: d["opset"].update(torch="2.14.0"),
        "plan",
        "captured with 2.13.0 -> 2.14.0",
    ),
    "operator schema": (
        lambda d: d["opset"]["schemas"].update({"aten.relu.default": "0" * 16}),
        "operators",
        "aten.relu.default",
    ),
    "requirement": (
        lambda d: d["requires"].append("state.kv"),
        "plan",
        "compute.aten -> compute.aten, state.kv",
    ),
    "name": (lambda d: d.update(name="other"), "plan", "digits -> other"),
    "entry point": (
        lambda d: d["entrypoints"].update(decode={"inputs": [], "outputs": [], "steps": []}),
        "entry point",
        "0 steps",
    ),
    "state": (
        lambda d: d["state"].update(
            cache={
                "type": "f32[4]",
                "device": "d0",
                "initial": "zeros",
                "version": 0,
                "update": "append",
            }
        ),
        "state",
        "append",
    ),
    "loop": (
        lambda d: d["loops"].update(g={"entry": "a", "body": "b", "carry": [], "until": "c"}),
        "loop",
        '"entry": "a"',
    ),
    "unused program": (
        lambda d: d["programs"].update(
            x={"inputs": [], "outputs": [], "scratch_bytes": "1", "ops": []}
        ),
        "plan",
        "differs",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_change_is_named(name: str) -> None:
    edit, what, said = EDITS[name]
    found = changes(edit)
    lines = [" ".join((c.text, *c.details)) for c in found if c.what == what]
    assert any(said in line for line in lines), found


def test_a_step_that_comes_and_goes() -> None:
    data = data_of("digits")

    def edit(d: dict[str, Any]) -> None:
        d["steps"].remove(step(d, "layer1/compute@d0"))

    gone = diff_plans(edited(data, same), edited(data, edit)).changes
    come = diff_plans(edited(data, edit), edited(data, same)).changes
    assert [(c.kind, c.name) for c in gone if c.what == "step"] == [
        ("removed", "layer1/compute@d0")
    ]
    assert [(c.kind, c.name) for c in come if c.what == "step"] == [("added", "layer1/compute@d0")]
    assert "7 ops, 41.2 KiB of constants" in come[0].text


def test_steps_in_another_order() -> None:
    (found,) = changes(lambda d: d["steps"].reverse())
    assert (found.what, found.name) == ("step", "order")


def test_a_shared_program_is_one_change_however_many_steps_call_it() -> None:
    def edit(data: dict[str, Any]) -> None:
        ops(data, "bert.encoder.layer.0/compute@d0")[0]["args"][2] = None

    (found,) = changes(edit, "bert")
    assert (found.what, found.kind) == ("program", "changed")
    assert "12 steps" in found.text
    assert found.name.startswith("bert.encoder.layer.0, ")


def test_long_groups_are_cut_in_the_text_and_whole_in_json() -> None:
    found = diff_plans(edited(data_of("bert-two"), same), edited(data_of("bert"), same))
    said = difference_text(found, "a", "b")
    steps = [c for c in found.changes if c.what == "step"]
    assert len(steps) > 12
    assert f"and {len(steps) - 12} more of step" in said
    assert len(difference_json(found)["changes"]) == len(found.changes)
    assert max(len(line) for line in said.splitlines()) < 400


# -- nothing that is executed goes unsaid --------------------------------------------------------


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """A small random change of a plan that keeps it within its schema."""
    seed = draw(st.integers(0, 2**31))
    kind = draw(st.sampled_from(["drop", "swap", "rename", "number", "copy"]))

    def edit(data: dict[str, Any]) -> None:
        lists = [data["steps"], *(p["ops"] for p in data["programs"].values())]
        lists += [p["inputs"] for p in data["programs"].values()]
        lists += [s["reads"] for s in data["steps"] if s["kind"] in ("load", "compute", "free")]
        tables = [data[n] for n in ("values", "constants", "policies", "dims", "links", "opset")]
        chosen = lists[seed % len(lists)]
        at = seed % len(chosen)
        if kind == "drop" and len(chosen) > 1:
            del chosen[at]
        elif kind == "swap":
            chosen[at], chosen[0] = chosen[0], chosen[at]
        elif kind == "copy" and all("id" in item for item in chosen if isinstance(item, dict)):
            chosen.insert(0, chosen[at])
        elif kind == "rename":
            table = data["values"]
            name = list(table)[seed % len(table)]
            table[name + ".new"] = table.pop(name)
        else:
            table = tables[seed % 4]
            name = list(table)[seed % len(table)]
            for key, value in table[name].items():
                if isinstance(value, int):
                    table[name][key] = value + 1
                    break

    return edit


@settings(max_examples=150)
@given(edit=edits())
def test_different_digests_always_come_with_a_change(edit: Edit) -> None:
    data = data_of("digits-two")
    a, b = edited(data, same), edited(data, edit)
    for old, new in ((a, b), (b, a)):
        found = diff_plans(old, new)
        assert found.equal == (old.plan_digest == new.plan_digest)
        assert bool(found.changes) != found.equal
        said = difference_text(found, "a", "b")
        assert said.endswith("\n")
        assert len(said) < 20_000
