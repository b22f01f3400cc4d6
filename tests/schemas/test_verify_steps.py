"""Plans whose steps are in disorder: left out, doubled, too early, on the wrong device."""

from __future__ import annotations

import pytest

from tests.schemas.attacks import Attacks, Data, insert, reordered, step_of, without

attack = Attacks()


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


@pytest.mark.parametrize("name", attack.cases)
def test_attack_is_refused(name: str) -> None:
    attack.check(name)
