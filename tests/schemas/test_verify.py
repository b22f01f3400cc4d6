"""Plans that were changed: each change is refused with its code, however well it was hidden."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_schemas.errors import GenieErrors
from genie_schemas.reader import read_plan
from genie_schemas.verify import verify
from tests.capture.reference import Interpreter, Undeclared
from tests.schemas.attacks import (
    Data,
    codes,
    data,
    insert,
    original,
    program_of,
    reordered,
    sealed,
    step_of,
    without,
)

CASES: dict[str, tuple[str, Callable[[Data], None]]] = {}


def attack(code: str) -> Callable[[Callable[[Data], None]], Callable[[Data], None]]:
    def add(change: Callable[[Data], None]) -> Callable[[Data], None]:
        assert change.__name__ not in CASES
        CASES[change.__name__] = (code, change)
        return change

    return add


# -- steps ----------------------------------------------------------------------------------------


@attack("GEN0308")
def a_load_is_left_out(plan: Data) -> None:
    without(plan, step_of(plan, "load"))


@attack("GEN0308")
def a_compute_is_left_out(plan: Data) -> None:
    without(plan, step_of(plan, "compute", "first/"))


@attack("GEN0308")
def a_transfer_is_left_out(plan: Data) -> None:
    without(plan, step_of(plan, "transfer"))


@attack("GEN0310")
def a_transfer_is_left_out_and_its_source_is_read(plan: Data) -> None:
    move = step_of(plan, "transfer", "first.3")
    without(plan, move)
    without(plan, step_of(plan, "free", "second"))
    del plan["values"][move["writes"][0]]
    compute = step_of(plan, "compute", "second/")
    compute["reads"][0] = move["reads"][0]


@attack("GEN0322")
def a_return_is_left_out(plan: Data) -> None:
    without(plan, step_of(plan, "return"))


@attack("GEN0322")
def an_entry_point_leaves_a_step_out(plan: Data) -> None:
    plan["entrypoints"]["forward"]["steps"].remove(step_of(plan, "free")["id"])


@attack("GEN0322")
def an_entry_point_names_a_step_that_is_not_there(plan: Data) -> None:
    plan["entrypoints"]["forward"]["steps"].append("nowhere/compute@d0")


@attack("GEN0313")
def an_entry_point_runs_a_step_twice(plan: Data) -> None:
    steps = plan["entrypoints"]["forward"]["steps"]
    steps.append(steps[-1])


@attack("GEN0313")
def an_entry_point_turns_the_order(plan: Data) -> None:
    plan["entrypoints"]["forward"]["steps"].reverse()


@attack("GEN0308")
def all_steps_are_turned_around(plan: Data) -> None:
    plan["steps"].reverse()
    reordered(plan)


@attack("GEN0308")
def a_compute_comes_before_its_load(plan: Data) -> None:
    plan["steps"][0], plan["steps"][1] = plan["steps"][1], plan["steps"][0]
    reordered(plan)


@attack("GEN0308")
def a_compute_comes_before_the_transfer_of_its_input(plan: Data) -> None:
    move = step_of(plan, "transfer", "slice")
    plan["steps"].remove(move)
    plan["steps"].append(move)
    reordered(plan)


@attack("GEN0309")
def a_step_stands_twice(plan: Data) -> None:
    plan["steps"].append(dict(plan["steps"][0]))


@attack("GEN0309")
def a_compute_runs_again_under_another_name(plan: Data) -> None:
    again = {**step_of(plan, "compute", "slice"), "id": "again/compute@d0"}
    insert(plan, len(plan["steps"]), again)


@attack("GEN0309")
def a_value_moves_twice(plan: Data) -> None:
    move = step_of(plan, "transfer")
    insert(plan, plan["steps"].index(move), {**move, "id": "again/transfer@d0->d1"})


@attack("GEN0322")
def a_value_is_returned_twice(plan: Data) -> None:
    insert(plan, len(plan["steps"]), {**step_of(plan, "return"), "id": "again/return@d1"})


@attack("GEN0322")
def a_value_is_returned_that_is_no_output(plan: Data) -> None:
    outputs = plan["entrypoints"]["forward"]["outputs"]
    outputs[:] = [o for o in outputs if o["name"] != "hidden"]


@attack("GEN0308")
def a_value_is_freed_too_early(plan: Data) -> None:
    free = step_of(plan, "free", "second")
    plan["steps"].remove(free)
    plan["steps"].insert(plan["steps"].index(step_of(plan, "compute", "second/")), free)
    reordered(plan)


@attack("GEN0308")
def a_value_is_freed_twice(plan: Data) -> None:
    free = step_of(plan, "free", "second")
    insert(plan, len(plan["steps"]), {**free, "id": "again/free@d1"})


@attack("GEN0308")
def an_output_is_freed_before_it_is_returned(plan: Data) -> None:
    at = plan["steps"].index(step_of(plan, "return", "add"))
    free = {"id": "early/free@d1", "kind": "free", "device": "d1", "reads": ["add"]}
    insert(plan, at, free)


@attack("GEN0308")
def a_constant_is_freed(plan: Data) -> None:
    step_of(plan, "free", "second")["reads"].append("scale")


@attack("GEN0310")
def a_value_is_freed_on_another_device(plan: Data) -> None:
    step_of(plan, "free", "second")["device"] = "d0"


@attack("GEN0308")
def a_compute_moves_to_another_device(plan: Data) -> None:
    step_of(plan, "compute", "first/")["device"] = "d1"


@attack("GEN0310")
def a_return_moves_to_another_device(plan: Data) -> None:
    step_of(plan, "return", "add")["device"] = "d0"


@attack("GEN0308")
def a_step_runs_on_a_device_that_is_not_there(plan: Data) -> None:
    step_of(plan, "load")["device"] = "d7"


@attack("GEN0310")
def a_transfer_goes_nowhere(plan: Data) -> None:
    move = step_of(plan, "transfer")
    move["dst"] = move["src"]


@attack("GEN0310")
def a_transfer_starts_where_the_value_is_not(plan: Data) -> None:
    move = step_of(plan, "transfer")
    move["src"], move["dst"] = move["dst"], move["src"]


@attack("GEN0308")
def a_constant_is_transferred(plan: Data) -> None:
    step_of(plan, "transfer", "slice")["reads"] = ["scale"]


@attack("GEN0308")
def a_load_of_what_is_no_constant(plan: Data) -> None:
    step_of(plan, "load")["reads"].append("nothing")


@attack("GEN0313")
def a_step_waits_for_a_later_one(plan: Data) -> None:
    plan["steps"][0]["after"] = [plan["steps"][-1]["id"]]


@attack("GEN0313")
def a_step_waits_for_itself(plan: Data) -> None:
    plan["steps"][3]["after"] = [plan["steps"][3]["id"]]


@attack("GEN0312")
def a_policy_that_is_not_there(plan: Data) -> None:
    plan["steps"][0]["policy"] = "patient"


@attack("GEN0312")
def a_policy_retries_on_no_code(plan: Data) -> None:
    plan["policies"]["default"]["retry_on"].append("GEN9999")


# -- programs and their calls ---------------------------------------------------------------------


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


# -- writing to what is not one's own -------------------------------------------------------------


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


# -- types, sizes, names --------------------------------------------------------------------------


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


# -- what the reader refuses ----------------------------------------------------------------------


@attack("GEN0317")
def weights_outside_the_folder(plan: Data) -> None:
    plan["constants"]["scale"]["source"] = "../net.safetensors#scale"


@attack("GEN0303")
def an_unknown_field(plan: Data) -> None:
    plan["steps"][0]["when"] = "now"


@attack("GEN0303")
def a_field_of_another_type(plan: Data) -> None:
    plan["dims"]["b"]["min"] = True


@attack("GEN0303")
def a_name_with_a_space(plan: Data) -> None:
    plan["steps"][0]["id"] = "first load"


@attack("GEN0303")
def a_version_that_is_none(plan: Data) -> None:
    plan["format_version"] = "1.x"


@attack("GEN0305")
def a_newer_format(plan: Data) -> None:
    plan["min_reader"] = plan["format_version"] = "9.0"


@attack("GEN0302")
def another_format(plan: Data) -> None:
    plan["format"] = "genie.result"


@pytest.mark.parametrize("name", CASES)
def test_attack_is_refused(name: str) -> None:
    code, change = CASES[name]
    plan = data()
    change(plan)
    assert json.dumps(plan) != json.dumps(data()), "the attack changed nothing"
    found = codes(sealed(plan))
    assert code in found, found


def test_the_original_is_accepted_however_it_is_spelled() -> None:
    assert codes(original().text) == set()
    assert codes(sealed(data())) == set()
    turned = json.dumps(data(), sort_keys=True, ensure_ascii=False, indent=1)
    assert codes(turned) == set()


# -- what a hasty attacker forgets ----------------------------------------------------------------


def test_one_changed_digit_breaks_the_digest() -> None:
    text = original().text
    at = text.index('"bytes"')
    for i in [i for i in range(at, len(text)) if text[i].isdigit()][:40]:
        digit = "1" if text[i] != "1" else "2"
        assert codes(text[:i] + digit + text[i + 1 :]) & {"GEN0304", "GEN0303"}


def test_what_the_digest_covers() -> None:
    for field, covered in (("provenance", False), ("advisory", False), ("policies", True)):
        plan = data()
        if field == "advisory":
            plan[field]["note"] = "predicted 3 ms"
        elif field == "provenance":
            plan[field]["compiler"] = "another"
        else:
            plan[field]["default"]["timeout_ms"] += 1
        assert codes(json.dumps(plan)) == ({"GEN0304"} if covered else set())


def test_a_program_under_a_wrong_key() -> None:
    plan = data()
    program_of(plan, "slice/")["ops"][0]["args"][3] = 5
    assert codes(sealed(plan, keys=False)) == {"GEN0321"}


def test_a_wrong_peak() -> None:
    plan = data()
    plan["devices"]["d0"]["needs"] -= 1
    assert codes(sealed(plan, needs=False)) == {"GEN0311"}


def test_an_opset_that_does_not_fit() -> None:
    plan = data()
    del plan["opset"]["schemas"]["aten.tanh.default"]
    plan["opset"]["schemas"]["aten.relu.default"] = "0" * 16
    assert codes(sealed(plan, opset=False)) == {"GEN0306"}
    plan = data()
    plan["opset"]["schemas"]["aten.tanh.default"] = "0" * 16
    assert codes(sealed(plan, opset=False)) == {"GEN0318"}


def test_all_errors_of_a_stage_come_at_once() -> None:
    plan = data()
    for value in plan["values"].values():
        value["bytes"] = "7"
    with pytest.raises(GenieErrors) as caught:
        verify(read_plan(sealed(plan)))
    assert len(caught.value.errors) == len(plan["values"])


# -- any change at all ----------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**53),
    st.sampled_from(["", "d0", "d1", "x", "b", "b*2", "scale", "f32[b,6]", "f32[4]", "free", "é"]),
    st.sampled_from([{"v": "x"}, {"e": "b-1"}, {"f": "nan"}, {"s": "a"}, [], {}]),
)


def _places(item: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    pairs = item.items() if isinstance(item, dict) else enumerate(item)
    for key, value in pairs:
        if isinstance(value, dict | list):
            found += _places(value, (*path, key))
        else:
            found.append((*path, key))
    return found


def _change(plan: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """One random change somewhere."""
    path = draw(st.sampled_from(_places(plan)))
    holder = plan
    for key in path[:-1]:
        holder = holder[key]
    key = path[-1]
    kind = draw(st.sampled_from(["replace", "delete", "copy", "swap", "move"]))
    if kind == "replace":
        holder[key] = copy.deepcopy(draw(scalars))  # a later change may change it
    elif kind == "delete":
        del holder[key]
    elif isinstance(holder, list):
        other = draw(st.integers(0, len(holder) - 1))
        if kind == "copy":
            holder.insert(other, json.loads(json.dumps(holder[key])))
        elif kind == "swap":
            holder[key], holder[other] = holder[other], holder[key]
        else:
            holder.insert(other, holder.pop(key))
    else:
        other = draw(st.sampled_from(sorted(holder)))
        if kind == "copy":
            holder[f"{key}2"] = holder[key]
        elif kind == "swap":
            holder[key], holder[other] = holder[other], holder[key]
        else:
            holder[draw(st.sampled_from(["x", "d0", "slice", "new"]))] = holder.pop(key)


@given(st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_change_is_refused_or_harmless(chosen: st.DataObject) -> None:
    plan = data()
    for _ in range(chosen.draw(st.integers(1, 3))):
        _change(plan, chosen.draw)
    reorder = chosen.draw(st.booleans())
    try:
        if reorder:
            reordered(plan)
        text = sealed(plan)
    except (KeyError, TypeError, AttributeError, ValueError):
        text = json.dumps(plan)  # such as an integer that no digest can be made of
    if codes(text):
        return
    accepted = read_plan(text)
    given_inputs = {
        item.name: torch.ones(3, 6)
        for entry in accepted.entrypoints.values()
        for item in entry.inputs
    }
    for name in accepted.entrypoints:
        try:
            Interpreter(accepted, original().folder, name).run(given_inputs)
        except (Undeclared, RuntimeError, IndexError, ValueError):
            continue  # only running a program tells what its operators make of these shapes
