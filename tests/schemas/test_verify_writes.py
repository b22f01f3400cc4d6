"""Programs that write to what is not their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.schemas.attacks import Attacks, Data, program_of

attack = Attacks()


def _write_in_add(plan: Data, *ops: tuple[list[str | None], str, list[Any]]) -> None:
    """Put calls in front of those of the program that adds on d1."""
    made = [{"out": out, "op": op, "args": args} for out, op, args in ops]
    program = program_of(plan, "add/")
    program["ops"] = made + program["ops"]


@attack("GEN0323")
def a_program_writes_to_its_input(plan: Data) -> None:
    _write_in_add(plan, ([None], "aten.relu_.default", [{"v": "x"}]))


@attack("GEN0323")
def a_program_writes_to_a_constant(plan: Data) -> None:
    _write_in_add(plan, ([None], "aten.zero_.default", [{"v": "scale"}]))


@attack("GEN0323")
def a_program_writes_to_a_constant_and_names_the_result(plan: Data) -> None:
    _write_in_add(plan, (["mine"], "aten.zero_.default", [{"v": "scale"}]))


@attack("GEN0323")
def a_program_writes_through_a_view(plan: Data) -> None:
    _write_in_add(
        plan,
        (["view"], "aten.view.default", [{"v": "scale"}, [2, 2]]),
        ([None], "aten.zero_.default", [{"v": "view"}]),
    )


@attack("GEN0323")
def a_program_writes_through_a_view_of_a_view_in_a_list(plan: Data) -> None:
    _write_in_add(
        plan,
        (["a", "b"], "aten.split.Tensor", [{"v": "scale"}, 2]),
        (["c"], "aten.unsqueeze.default", [{"v": "b"}, 0]),
        ([None], "aten.copy_.default", [{"v": "c"}, 1]),
    )


@attack("GEN0323")
def a_program_writes_to_what_may_be_a_constant(plan: Data) -> None:
    _write_in_add(
        plan,
        (["same"], "aten.contiguous.default", [{"v": "scale"}]),
        ([None], "aten.zero_.default", [{"v": "same"}]),
    )


@attack("GEN0323")
def a_program_writes_to_what_no_schema_calls_a_view(plan: Data) -> None:
    _write_in_add(
        plan,
        (["same"], "aten.type_as.default", [{"v": "scale"}, {"v": "x"}]),
        (["list"], "aten.broadcast_tensors.default", [[{"v": "same"}]]),
        ([None], "aten.add_.Tensor", [{"v": "list"}, 1]),
    )


@attack("GEN0323")
def a_program_writes_to_running_statistics(plan: Data) -> None:
    call: list[Any] = [{"v": "x"}, None, None, {"v": "scale"}, {"v": "scale"}]
    call += [True, {"f": (0.1).hex()}, {"f": (1e-5).hex()}, False]
    _write_in_add(plan, (["norm"], "aten.batch_norm.default", call))


@attack("GEN0323")
def a_program_writes_to_a_list_of_constants(plan: Data) -> None:
    _write_in_add(plan, ([], "aten._foreach_zero_.default", [[{"v": "scale"}]]))


@pytest.mark.parametrize("name", attack.cases)
def test_attack_is_refused(name: str) -> None:
    attack.check(name)
