"""Control flow in hostile plans: programs that are missing, take or give something else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from genie_schemas import writer
from tests.capture.compiling import Compiled, compile_module, spec_of
from tests.schemas.attacks import Data, codes, sealed


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        (y,) = while_loop(lambda y: y.sum() < 100, lambda y: (y + 1,), (x.abs() + 1,))
        found: Tensor = torch.cond(y.max() > 3, lambda z: z * 2, lambda z: z - 1, (y,))
        return found


@cache
def original() -> Compiled:
    return compile_module(Net().eval(), spec_of({"x": ("float32", ["b", 6])}))


def call_of(plan: Data, kind: str) -> Data:
    ops = (op for program in plan["programs"].values() for op in program["ops"])
    found: Data = next(op for op in ops if op["op"] == kind)
    return found


def program(plan: Data, reference: Data) -> Data:
    found: Data = plan["programs"][reference["program"]]
    return found


def another_program(plan: Data) -> None:
    call_of(plan, "hop.cond")["args"][1] = {"program": "0" * 16}


def no_program(plan: Data) -> None:
    call_of(plan, "hop.cond")["args"][1] = 3


def an_operand_more(plan: Data) -> None:
    call = call_of(plan, "hop.cond")
    call["args"][3].append(call["args"][0])


def an_operand_that_is_none(plan: Data) -> None:
    call_of(plan, "hop.while_loop")["args"][2] = [7]


def an_argument_more(plan: Data) -> None:
    call_of(plan, "hop.cond")["args"].append([])


def a_keyword(plan: Data) -> None:
    call_of(plan, "hop.cond")["kwargs"] = {"twice": True}


def a_result_more(plan: Data) -> None:
    call_of(plan, "hop.cond")["out"].append("more")


def a_value_of_nowhere(plan: Data) -> None:
    call_of(plan, "hop.cond")["args"][3][0] = {"v": "nowhere"}


def a_condition_that_is_no_bool(plan: Data) -> None:
    call = call_of(plan, "hop.while_loop")
    program(plan, call["args"][0])["outputs"][0]["type"] = "f32[]"


def branches_of_other_types(plan: Data) -> None:
    call = call_of(plan, "hop.cond")
    program(plan, call["args"][2])["outputs"][0]["type"] = "f32[b,7]"


def a_carried_value_that_changes_its_type(plan: Data) -> None:
    call = call_of(plan, "hop.while_loop")
    program(plan, call["args"][1])["outputs"][0]["type"] = "f64[b,6]"


def an_unknown_kind(plan: Data) -> None:
    call_of(plan, "hop.cond")["op"] = "hop.fork"


def a_branch_that_writes_to_its_operand(plan: Data) -> None:
    call = call_of(plan, "hop.cond")
    body = program(plan, call["args"][1])
    given = body["inputs"][0]["name"]
    body["ops"][0] = {**body["ops"][0], "op": "aten.mul_.Scalar", "args": [{"v": given}, 2]}


ATTACKS: dict[Callable[[Data], None], str] = {
    another_program: "GEN0307",
    no_program: "GEN0307",
    an_operand_more: "GEN0307",
    an_operand_that_is_none: "GEN0307",
    an_argument_more: "GEN0307",
    a_keyword: "GEN0307",
    a_result_more: "GEN0307",
    a_value_of_nowhere: "GEN0308",
    a_condition_that_is_no_bool: "GEN0307",
    branches_of_other_types: "GEN0307",
    a_carried_value_that_changes_its_type: "GEN0307",
    an_unknown_kind: "GEN0306",
    a_branch_that_writes_to_its_operand: "GEN0323",
}


def rekeyed(plan: Data) -> Data:
    """The plan with every program under the key of its content, callers included."""
    for _ in range(4):  # as deep as programs call programs here
        renamed = {old: writer.program_key(p) for old, p in plan["programs"].items()}
        text = json.dumps(plan)
        for old, new in renamed.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        plan = json.loads(text)
    return plan


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_attack_is_refused(attack: Callable[[Data], None]) -> None:
    plan = copy.deepcopy(json.loads(original().text))
    attack(plan)
    assert plan != json.loads(original().text)
    assert ATTACKS[attack] in codes(sealed(rekeyed(plan), keys=False))


def test_the_original_is_accepted() -> None:
    assert codes(sealed(rekeyed(json.loads(original().text)), keys=False)) == set()


def test_control_flow_must_be_required() -> None:
    plan = json.loads(original().text)
    plan["requires"] = ["compute.aten"]
    assert codes(sealed(plan, keys=False)) == {"GEN0325"}


def test_programs_call_each_other_to_a_limit() -> None:
    """A chain of branches within branches, one deeper than what is allowed."""
    plan = json.loads(original().text)
    call = call_of(plan, "hop.cond")
    key = call["args"][1]["program"]
    inner = plan["programs"][key]
    for _ in range(17):
        outer = copy.deepcopy(inner)
        given = outer["inputs"][0]["name"]
        outer["ops"] = [
            {"out": ["p"], "op": "aten.is_nonzero_of", "args": [], "kwargs": {}},
            {
                "out": [outer["outputs"][0]["name"]],
                "op": "hop.cond",
                "args": [{"v": "p"}, {"program": key}, {"program": key}, [{"v": given}]],
            },
        ]
        outer["ops"][0] = {"out": ["p"], "op": "aten.any.default", "args": [{"v": given}]}
        key = writer.program_key(outer)
        plan["programs"][key] = outer
        inner = outer
    call["args"][1] = {"program": key}
    assert codes(sealed(rekeyed(plan), keys=False)) == {"GEN0314"}
