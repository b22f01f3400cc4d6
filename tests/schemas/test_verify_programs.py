"""Plans whose programs do not fit their steps, or call what they may not."""

from __future__ import annotations

import pytest

from tests.schemas.attacks import Attacks, Data, program_of, step_of

attack = Attacks()


@attack("GEN0308")
def a_program_that_is_not_there(plan: Data) -> None:
    step_of(plan, "compute")["program"] = "0" * 16


@attack("GEN0320")
def another_program(plan: Data) -> None:
    step_of(plan, "compute", "first/")["program"] = step_of(plan, "compute", "slice")["program"]


@attack("GEN0320")
def a_read_too_few(plan: Data) -> None:
    step_of(plan, "compute", "first/")["reads"].pop()


@attack("GEN0320")
def reads_in_another_order(plan: Data) -> None:
    reads = step_of(plan, "compute", "first/")["reads"]
    reads[1], reads[2] = reads[2], reads[1]


@attack("GEN0308")
def a_write_without_a_value(plan: Data) -> None:
    del plan["values"]["slice"]


@attack("GEN0308")
def a_value_that_nobody_writes(plan: Data) -> None:
    plan["values"]["ghost"] = {"type": "f32[2]", "bytes": "8", "device": "d0"}


@attack("GEN0309")
def a_value_named_like_a_constant(plan: Data) -> None:
    plan["constants"]["slice"] = plan["constants"]["scale"]


@attack("GEN0309")
def a_program_defines_a_name_twice(plan: Data) -> None:
    ops = program_of(plan, "first/")["ops"]
    ops[2]["out"] = ["0.linear"]


@attack("GEN0309")
def a_program_redefines_its_input(plan: Data) -> None:
    program_of(plan, "first/")["ops"][0]["out"] = ["x"]


@attack("GEN0309")
def a_program_has_two_inputs_of_one_name(plan: Data) -> None:
    program = program_of(plan, "add/")
    program["inputs"][1]["name"] = "x"
    program["ops"][0]["args"][1] = {"v": "x"}


@attack("GEN0308")
def a_program_reads_what_it_does_not_have(plan: Data) -> None:
    program_of(plan, "slice/")["ops"][0]["args"][0] = {"v": "y"}


@attack("GEN0308")
def a_program_reads_ahead(plan: Data) -> None:
    program_of(plan, "first/")["ops"].reverse()


@attack("GEN0308")
def a_program_returns_its_input(plan: Data) -> None:
    program = program_of(plan, "slice/")
    program["outputs"] = [{"name": "x", "type": "f32[b,4]"}]


@attack("GEN0306")
def an_operator_off_the_list(plan: Data) -> None:
    program_of(plan, "slice/")["ops"][0]["op"] = "aten.set_.source_Tensor"


@attack("GEN0306")
def an_operator_of_another_library(plan: Data) -> None:
    program_of(plan, "slice/")["ops"][0]["op"] = "mylib.slice.default"


@attack("GEN0306")
def random_numbers(plan: Data) -> None:
    program_of(plan, "add/")["ops"][0] = {
        "out": ["add"],
        "op": "aten.rand_like.default",
        "args": [{"v": "x"}],
    }


@attack("GEN0307")
def an_argument_is_missing(plan: Data) -> None:
    program_of(plan, "add/")["ops"][0]["args"].pop()


@attack("GEN0307")
def an_argument_too_many(plan: Data) -> None:
    program_of(plan, "add/")["ops"][0]["args"] += [1, 1, 1]


@attack("GEN0307")
def an_unknown_keyword(plan: Data) -> None:
    program_of(plan, "add/")["ops"][0]["kwargs"] = {"beta": 1}


@attack("GEN0307")
def an_argument_is_given_twice(plan: Data) -> None:
    program_of(plan, "add/")["ops"][0]["kwargs"] = {"other": 1}


@attack("GEN0307")
def an_argument_of_another_type(plan: Data) -> None:
    program_of(plan, "slice/")["ops"][0]["args"][1] = {"s": "1"}


@attack("GEN0307")
def a_value_where_a_number_belongs(plan: Data) -> None:
    program_of(plan, "slice/")["ops"][0]["args"][1] = {"v": "x"}


@attack("GEN0307")
def a_malformed_argument(plan: Data) -> None:
    program_of(plan, "slice/")["ops"][0]["args"][1] = {"f": "1.5"}


@attack("GEN0307")
def a_float_beyond_all_floats(plan: Data) -> None:
    program_of(plan, "add/")["ops"][0]["args"][1] = {"f": "0x1.0000000000000p+9999"}


@attack("GEN0307")
def a_device_by_name(plan: Data) -> None:
    op = {"out": ["add"], "op": "aten.zeros_like.default", "args": [{"v": "x"}]}
    program_of(plan, "add/")["ops"][0] = {**op, "kwargs": {"device": {"device": "cuda"}}}


@attack("GEN0307")
def more_results_than_there_are(plan: Data) -> None:
    program_of(plan, "add/")["ops"][0]["out"] = ["add", "add.2"]


@attack("GEN0308")
def an_expression_over_an_unknown_dimension(plan: Data) -> None:
    program_of(plan, "slice/")["ops"][0]["args"][3] = {"e": "batch"}


@pytest.mark.parametrize("name", attack.cases)
def test_attack_is_refused(name: str) -> None:
    attack.check(name)
