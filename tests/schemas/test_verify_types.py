"""Plans whose types, sizes, names and entry points contradict each other."""

from __future__ import annotations

import pytest

from tests.schemas.attacks import Attacks, Data, program_of

attack = Attacks()


@attack("GEN0320")
def a_value_of_another_type(plan: Data) -> None:
    plan["values"]["slice"].update(type="f32[b,5]", bytes="b*20")


@attack("GEN0320")
def a_value_in_another_layout(plan: Data) -> None:
    plan["values"]["slice"]["type"] = "f32[b,4]{1,0}"


@attack("GEN0320")
def a_value_with_other_bytes(plan: Data) -> None:
    plan["values"]["slice"]["bytes"] = "b*20"


@attack("GEN0320")
def a_constant_with_other_bytes(plan: Data) -> None:
    plan["constants"]["scale"]["bytes"] = 20


@attack("GEN0320")
def a_constant_of_unknown_size(plan: Data) -> None:
    plan["constants"]["scale"]["type"] = "f32[b]"


@attack("GEN0320")
def a_type_that_is_none(plan: Data) -> None:
    plan["values"]["slice"]["type"] = "f32[b,4]{1,}"


@attack("GEN0320")
def a_size_below_zero(plan: Data) -> None:
    plan["values"]["slice"].update(type="f32[b,-4]", bytes="b*-16")


@attack("GEN0320")
def a_size_of_an_unknown_dimension(plan: Data) -> None:
    plan["values"]["slice"].update(type="f32[c,4]", bytes="c*16")


@attack("GEN0320")
def a_dimension_without_a_size(plan: Data) -> None:
    plan["dims"]["b"] = {"min": 5, "max": 4}


@attack("GEN0320")
def a_dimension_is_renamed(plan: Data) -> None:
    plan["dims"]["batch"] = plan["dims"].pop("b")


@attack("GEN0320")
def a_dimension_that_nobody_uses(plan: Data) -> None:
    plan["dims"]["c"] = {"min": 1, "max": 9}


@attack("GEN0320")
def a_dimension_that_no_input_tells(plan: Data) -> None:
    plan["dims"]["c"] = {"min": 1, "max": 9}
    program = program_of(plan, "slice/")
    program["ops"][0]["args"][3] = {"e": "c"}


@attack("GEN0320")
def an_input_of_another_type_than_its_value(plan: Data) -> None:
    plan["values"]["x"] = {"type": "f32[b,6]", "bytes": "b*24", "device": "d0"}
    plan["entrypoints"]["forward"]["inputs"][0]["type"] = "f64[b,6]"


@attack("GEN0310")
def an_input_on_another_device_than_its_value(plan: Data) -> None:
    plan["values"]["x"] = {"type": "f32[b,6]", "bytes": "b*24", "device": "d1"}


@attack("GEN0309")
def two_inputs_of_one_name(plan: Data) -> None:
    inputs = plan["entrypoints"]["forward"]["inputs"]
    inputs.append(inputs[0])


@attack("GEN0309")
def two_outputs_of_one_name(plan: Data) -> None:
    outputs = plan["entrypoints"]["forward"]["outputs"]
    outputs[1]["name"] = outputs[0]["name"]


@attack("GEN0322")
def an_output_that_is_both(plan: Data) -> None:
    plan["entrypoints"]["forward"]["outputs"][0]["literal"] = 3


@attack("GEN0307")
def an_output_that_refers(plan: Data) -> None:
    plan["entrypoints"]["forward"]["outputs"][3]["literal"] = [{"v": "x"}]


@attack("GEN0307")
def an_output_that_is_malformed(plan: Data) -> None:
    plan["entrypoints"]["forward"]["outputs"][3]["literal"] = {"i": "7"}


@attack("GEN0308")
def an_output_of_an_unknown_dimension(plan: Data) -> None:
    plan["entrypoints"]["forward"]["outputs"][4]["literal"] = {"e": "c*2"}


@attack("GEN0308")
def an_input_on_a_device_that_is_not_there(plan: Data) -> None:
    plan["entrypoints"]["forward"]["inputs"][0]["device"] = "d7"


@attack("GEN0308")
def a_link_to_nowhere(plan: Data) -> None:
    plan["links"]["d0->d7"] = plan["links"]["d0->d1"]


@attack("GEN0324")
def a_device_that_is_too_small(plan: Data) -> None:
    plan["devices"]["d1"]["memory_bytes"] = 1


@attack("GEN0325")
def a_state_that_is_not_required(plan: Data) -> None:
    state = {"type": "f32[4]", "device": "d0", "initial": "zeros", "version": 0}
    plan["state"]["kv"] = {**state, "update": "append"}


@attack("GEN0325")
def a_loop_that_is_not_required(plan: Data) -> None:
    plan["loops"]["g"] = {"entry": "forward", "body": "forward", "carry": [], "until": "x"}


@pytest.mark.parametrize("name", attack.cases)
def test_attack_is_refused(name: str) -> None:
    attack.check(name)
