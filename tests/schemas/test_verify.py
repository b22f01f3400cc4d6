"""What the reader refuses, what the digests cover, and that an honest plan is accepted."""

from __future__ import annotations

import json

import pytest

from genie_schemas.errors import GenieErrors
from genie_schemas.reader import read_plan
from genie_schemas.verify import verify
from tests.schemas.attacks import Attacks, Data, codes, data, original, program_of, sealed

attack = Attacks()


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


@pytest.mark.parametrize("name", attack.cases)
def test_attack_is_refused(name: str) -> None:
    attack.check(name)


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
