"""Plans that lie about state and loops, made from the frozen one of format 1.1."""

from __future__ import annotations

import copy
import json
from functools import cache

import pytest
from syrupy.assertion import SnapshotAssertion

from genie_schemas.errors import GenieErrors
from genie_schemas.reader import read_plan
from genie_schemas.verify import entry_dims, verify
from tests.golden.support import GOLDEN
from tests.schemas.attacks import Attacks, Change, Data, codes, sealed

attack = Attacks()


@cache
def _text() -> str:
    return (GOLDEN / "compat" / "1.1" / "tiny-lm.plan.json").read_text(encoding="utf-8")


def lm() -> Data:
    parsed: Data = json.loads(_text())
    return parsed


def step(plan: Data, name: str) -> Data:
    found: Data = next(s for s in plan["steps"] if s["id"].startswith(name))
    return found


def effect(plan: Data, state: str, name: str = "decode.layer0") -> Data:
    found: Data = next(e for e in step(plan, name)["effect"] if e["state"] == state)
    return found


def sample(plan: Data) -> Data:
    found: Data = plan["loops"]["generate"]["sample"]
    return found


def program(plan: Data, name: str) -> Data:
    found: Data = plan["programs"][step(plan, name)["program"]]
    return found


def insert(plan: Data, entry: str, before: str, made: Data) -> None:
    """Put a step in front of another one of an entry point."""
    at = plan["steps"].index(step(plan, before))
    plan["steps"].insert(at, made)
    wanted = {*plan["entrypoints"][entry]["steps"], made["id"]}
    plan["entrypoints"][entry]["steps"] = [s["id"] for s in plan["steps"] if s["id"] in wanted]


# -- state ----------------------------------------------------------------------------------------


@attack("GEN0308")
def a_state_lies_on_no_device(plan: Data) -> None:
    plan["state"]["k0"]["device"] = "d7"


@attack("GEN0308")
def a_step_moves_a_state_of_another_device(plan: Data) -> None:
    effect(plan, "k0")["state"] = "k1"


@attack("GEN0308")
def a_step_moves_a_state_that_is_not_there(plan: Data) -> None:
    effect(plan, "k0")["state"] = "k9"


@attack("GEN0309")
def a_step_moves_a_state_twice(plan: Data) -> None:
    effects = step(plan, "decode.layer0")["effect"]
    effects.append(dict(effects[0]))


@attack("GEN0313")
def an_effect_expects_a_step_that_does_not_stand_before(plan: Data) -> None:
    effect(plan, "k0")["expects"] = "decode.layer1/compute@d1"


@attack("GEN0313")
def an_effect_expects_a_step_that_moved_nothing(plan: Data) -> None:
    effect(plan, "k0")["expects"] = "decode.embed/compute@d0"


@attack("GEN0308")
def an_appended_state_takes_a_value(plan: Data) -> None:
    effect(plan, "k0")["value"] = "decode.x1"


@attack("GEN0308")
def a_replaced_state_takes_nothing(plan: Data) -> None:
    del effect(plan, "cursor0")["value"]


@attack("GEN0308")
def a_replaced_state_takes_what_another_step_wrote(plan: Data) -> None:
    effect(plan, "cursor0")["value"] = "decode.x0"


@attack("GEN0320")
def a_replaced_state_takes_another_type(plan: Data) -> None:
    effect(plan, "cursor0")["value"] = "decode.x1"


@attack("GEN0308")
def an_appended_state_is_not_read(plan: Data) -> None:
    step(plan, "decode.layer0")["reads"][2] = "v0"


@attack("GEN0308")
def a_state_is_freed(plan: Data) -> None:
    free = {"id": "k0/free@d0", "kind": "free", "device": "d0", "reads": ["k0"]}
    insert(plan, "decode", "decode.x1/transfer", free)


@attack("GEN0308")
def a_value_that_a_state_takes_is_freed(plan: Data) -> None:
    free = {"id": "c/free@d0", "kind": "free", "device": "d0", "reads": ["decode.cursor0"]}
    insert(plan, "decode", "decode.x1/transfer", free)


@attack("GEN0308")
def a_state_begins_as_a_constant_that_is_not_there(plan: Data) -> None:
    plan["state"]["cursor0"]["initial"] = "ones"


@attack("GEN0320")
def a_state_begins_as_a_constant_of_another_type(plan: Data) -> None:
    plan["state"]["cursor0"]["initial"] = "embed"


@attack("GEN0323")
def a_program_writes_to_a_state_that_its_step_does_not_move(plan: Data) -> None:
    effects = step(plan, "decode.layer0")["effect"]
    effects.remove(effect(plan, "k0"))


@attack("GEN0323")
def a_program_writes_to_a_state_that_is_replaced(plan: Data) -> None:
    call = {"out": [None], "op": "aten.zero_.default", "args": [{"v": "cursor"}]}
    program(plan, "decode.layer0")["ops"].append(call)


@attack("GEN0323")
def a_program_writes_to_a_weight_through_what_it_was_given(plan: Data) -> None:
    view = {"out": ["w"], "op": "aten.t.default", "args": [{"v": "wq"}]}
    call = {"out": [None], "op": "aten.zero_.default", "args": [{"v": "w"}]}
    program(plan, "decode.layer0")["ops"] += [view, call]


@attack("GEN0323")
def a_program_that_appends_is_called_with_a_value(plan: Data) -> None:
    """Both layers share the program: the second would write into its input."""
    copied = {**copy.deepcopy(step(plan, "decode.layer0")), "id": "again/compute@d0"}
    copied["reads"][0] = "decode.x1"
    copied["writes"] = ["again.x", "again.cursor"]
    copied["effect"] = [
        {"state": "v0", "expects": "decode.layer0/compute@d0"},
        {"state": "cursor0", "expects": "decode.layer0/compute@d0", "value": "again.cursor"},
    ]
    for made, like in (("again.x", "decode.x1"), ("again.cursor", "decode.cursor0")):
        plan["values"][made] = dict(plan["values"][like])
    insert(plan, "decode", "decode.x1/transfer", copied)


# -- versions, features, sizes --------------------------------------------------------------------


@attack("GEN0325")
def state_is_not_required(plan: Data) -> None:
    plan["requires"].remove("state.kv")


@attack("GEN0325")
def loops_are_not_required(plan: Data) -> None:
    plan["requires"].remove("loop.generate")


@attack("GEN0327")
def the_format_has_no_state(plan: Data) -> None:
    plan["format_version"] = plan["min_reader"] = "1.0"


@attack("GEN0327")
def an_old_reader_may_try(plan: Data) -> None:
    plan["min_reader"] = "1.0"


@attack("GEN0320")
def no_input_gives_the_size_of_a_state(plan: Data) -> None:
    plan["dims"]["slots"] = {"min": 1, "max": 4}
    plan["state"]["k0"]["type"] = "f32[slots,48,32]"


@attack("GEN0320")
def a_dimension_is_used_by_nothing(plan: Data) -> None:
    plan["dims"]["depth"] = {"min": 1, "max": 4}


@attack("GEN0320")
def two_entry_points_disagree_on_an_input(plan: Data) -> None:
    item = {"name": "lengths", "type": "i64[batch,1]", "device": "d0"}
    plan["entrypoints"]["decode"]["inputs"].append(item)


# -- loops ----------------------------------------------------------------------------------------


@attack("GEN0309")
def a_loop_is_called_like_an_entry_point(plan: Data) -> None:
    plan["loops"]["decode"] = plan["loops"].pop("generate")


@attack("GEN0326")
def a_loop_without_entry(plan: Data) -> None:
    plan["loops"]["generate"]["entry"] = "warmup"


@attack("GEN0326")
def a_loop_whose_body_is_its_entry(plan: Data) -> None:
    plan["loops"]["generate"]["entry"] = "decode"


@attack("GEN0326")
def a_loop_that_does_not_sample(plan: Data) -> None:
    del plan["loops"]["generate"]["sample"]


@attack("GEN0326")
def a_loop_that_carries_something_else(plan: Data) -> None:
    plan["loops"]["generate"]["carry"] = ["lengths"]


@attack("GEN0326")
def a_loop_until_something_else(plan: Data) -> None:
    plan["loops"]["generate"]["until"] = "bored"


@attack("GEN0326")
def scores_that_are_no_output(plan: Data) -> None:
    sample(plan)["logits"] = "scores"


@attack("GEN0326")
def scores_of_another_type(plan: Data) -> None:
    output = plan["entrypoints"]["decode"]["outputs"][0]
    step(plan, "decode.logits/return")["reads"] = ["decode.x2"]
    output["value"] = "decode.x2"


@attack("GEN0326")
def a_token_that_is_no_input(plan: Data) -> None:
    sample(plan)["token"] = plan["loops"]["generate"]["carry"][0] = "tokens"


@attack("GEN0326")
def lengths_that_are_no_input(plan: Data) -> None:
    sample(plan)["lengths"] = "input_ids"


@attack("GEN0326")
def an_end_beyond_the_vocabulary(plan: Data) -> None:
    sample(plan)["eos"] = [3, 64]


@attack("GEN0326")
def a_pad_beyond_the_vocabulary(plan: Data) -> None:
    sample(plan)["pad"] = 64


@attack("GEN0326")
def a_cache_smaller_than_the_longest_prompt(plan: Data) -> None:
    sample(plan)["capacity"] = 15


@attack("GEN0326")
def a_body_that_takes_more(plan: Data) -> None:
    item = {"name": "bias", "type": "f32[batch]", "device": "d1"}
    plan["entrypoints"]["decode"]["inputs"].append(item)


@attack("GEN0326")
def a_device_that_is_not_told_of_the_turn(plan: Data) -> None:
    """d0 begins with the cursor: it would not learn of the end."""
    move = step(plan, "token/transfer")
    plan["steps"].remove(move)
    plan["entrypoints"]["decode"]["steps"].remove(move["id"])
    del plan["values"]["token@d0"]
    step(plan, "decode.embed")["reads"][0] = "cursor0"


@attack("GEN0326")
def a_transfer_that_nobody_waits_for(plan: Data) -> None:
    """Its bytes may still be on their way when the next turn writes over them."""
    plan["values"]["late"] = {**plan["values"]["decode.x2"], "device": "d0"}
    move = {"id": "late/transfer@d1->d0", "kind": "transfer", "src": "d1", "dst": "d0"}
    move |= {"reads": ["decode.x2"], "writes": ["late"]}
    insert(plan, "decode", "decode.logits/return", move)


@pytest.mark.parametrize("name", attack.cases)
def test_attack_is_refused(name: str) -> None:
    code, change = attack.cases[name]
    plan = lm()
    change(plan)
    assert plan != lm(), "the attack changed nothing"
    assert code in codes(sealed(plan))


SAID = (
    a_transfer_that_nobody_waits_for,
    a_device_that_is_not_told_of_the_turn,
    an_end_beyond_the_vocabulary,
    the_format_has_no_state,
    an_effect_expects_a_step_that_moved_nothing,
)


@pytest.mark.parametrize("change", SAID, ids=lambda change: change.__name__)
def test_what_is_said(change: Change, snapshot: SnapshotAssertion) -> None:
    plan = lm()
    change(plan)
    with pytest.raises(GenieErrors) as caught:
        verify(read_plan(sealed(plan)))
    assert str(caught.value) == snapshot


def test_the_original_is_accepted() -> None:
    assert codes(sealed(lm())) == set()


def test_entry_points_have_the_dimensions_that_they_use() -> None:
    plan = read_plan(_text())
    assert entry_dims(plan, "prefill") == {"batch", "seq"}
    assert entry_dims(plan, "decode") == {"batch"}
    assert entry_dims(plan, "generate") == {"batch", "seq"}
    with pytest.raises(KeyError):
        entry_dims(plan, "forward")
