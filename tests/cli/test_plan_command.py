"""`genie plan show | diff | verify` as users call them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[2]
COMPAT = ROOT / "golden" / "compat" / "1.0"
ONE, TWO, EVERY = (
    str(COMPAT / f"{name}.plan.json") for name in ("digits", "digits-two", "every-field")
)


@pytest.fixture
def digits(genie: Run) -> Path:
    """A plan in the working directory, with its weights beside it."""
    path = Path("digits.plan.json")
    shutil.copy(ONE, path)
    source = next(iter(json.loads(path.read_text())["constants"].values()))["source"]
    shutil.copy(ROOT / "plans" / "digits" / "digits.safetensors", source.partition("#")[0])
    return path


def test_show(genie: Run) -> None:
    result = genie("plan", "show", TWO)
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out
    for said in ("plan digits-two", "batch 1..512", "on d1", "d0 -> d1", "peak"):
        assert said in result.out


def test_show_json(genie: Run) -> None:
    body = json.loads(genie("plan", "show", TWO, "--json").out)
    assert [d["id"] for d in body["devices"]] == ["d0", "d1"]
    assert body["constants"]["count"] == 28
    assert {"load", "compute", "transfer", "return"} <= {s["kind"] for s in body["steps"]}


def test_show_semantics(genie: Run) -> None:
    assert "layer1" in genie("plan", "show", ONE, "--semantics").out
    body = json.loads(genie("plan", "show", ONE, "--semantics", "--json").out)
    assert body["regions"][0]["module"] == "stem"


def test_show_a_program_by_step_key_and_first_digits(genie: Run) -> None:
    by_step = genie("plan", "show", ONE, "--step", "head/compute@d0")
    assert "head.linear = aten.linear.default(" in by_step.out
    body = json.loads(genie("plan", "show", ONE, "--step", "head/compute@d0", "--json").out)
    assert body["step"] == "head/compute@d0"
    by_key = genie("plan", "show", ONE, "--program", body["key"])
    assert by_key.out == genie("plan", "show", ONE, "--program", body["key"][:6]).out
    assert "aten.linear.default(" in by_key.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--step", "head/computed@d0"), "did you mean 'head/compute@d0'?"),
        (("--step", "stem/load@d0"), "did you mean 'stem/compute@d0'?"),
        (("--program", "zzzz"), "plan show"),
        (("--program", "ffff", "--semantics"), "give one of"),
    ],
)
def test_show_what_is_not_there(genie: Run, args: tuple[str, ...], said: str) -> None:
    result = genie("plan", "show", ONE, *args)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_show_never_drives_the_terminal(genie: Run) -> None:
    data = json.loads(Path(ONE).read_text()) | {"name": "\x1b[31mred\x07"}
    Path("evil.json").write_text(json.dumps(data))
    result = genie("plan", "show", "evil.json")
    assert result.code == 0
    assert "\x1b" not in result.out
    assert "\\x1b[31mred" in result.out


def test_diff(genie: Run) -> None:
    same = genie("plan", "diff", ONE, ONE)
    assert (same.code, same.out[:7], same.err) == (0, "equal: ", "")
    other = genie("plan", "diff", ONE, TWO)
    assert other.code == 3
    assert "> step layer2/compute: d0 -> d1" in other.out
    assert "\x1b" not in other.out


def test_diff_json(genie: Run) -> None:
    assert json.loads(genie("plan", "diff", ONE, ONE, "--json").out) == {
        "equal": True,
        "changes": [],
    }
    result = genie("plan", "diff", ONE, TWO, "--json")
    body = json.loads(result.out)
    assert (result.code, body["equal"]) == (3, False)
    assert {"what", "kind", "name", "text", "details"} == set(body["changes"][0])


def test_diff_of_what_is_no_plan(genie: Run) -> None:
    Path("cut.json").write_text(Path(ONE).read_text()[:5000])
    result = genie("plan", "diff", ONE, "cut.json")
    assert (result.code, result.out) == (4, "")
    assert "GEN0301" in result.err


def test_verify(genie: Run, digits: Path) -> None:
    result = genie("plan", "verify", str(digits))
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("digits.plan.json: ok  sha256:")
    assert result.out.endswith("171.9 KiB intact\n")
    body = json.loads(genie("plan", "verify", str(digits), "--json").out)
    assert body["plans"][0]["constants_checked"] is True
    assert body["plans"][0]["constants"] == 28


def test_verify_reports_the_errors_of_all_files(genie: Run, digits: Path) -> None:
    Path("cut.json").write_text(digits.read_text()[:5000])
    result = genie("plan", "verify", "cut.json", str(digits), ONE, "absent.json")
    assert result.code == 4
    assert result.out.count("\n") == 1
    assert result.out.startswith("digits.plan.json: ok")
    for code in ("GEN0301", "GEN0315", "GEN0300"):
        assert code in result.err
    assert "3 errors" in result.err
    body = json.loads(genie("plan", "verify", "cut.json", str(digits), "--json").out)
    assert [e["code"] for e in body["errors"]] == ["GEN0301"]


def test_verify_a_plan_without_its_weights(genie: Run) -> None:
    refused = genie("plan", "verify", ONE)
    assert refused.code == 4
    assert refused.err.count("error GEN0315") == 1
    result = genie("plan", "verify", "--without-constants", ONE, TWO)
    assert result.code == 0
    assert result.out.count("not checked") == 2


def test_verify_a_plan_that_needs_another_version(genie: Run) -> None:
    newer = Path(ONE).read_text().replace('"min_reader": "1.0"', '"min_reader": "9.0"')
    Path("newer.json").write_text(newer)
    result = genie("plan", "verify", "newer.json")
    assert result.code == 8
    assert "9.0" in result.err
    assert "1.0" in result.err


@pytest.mark.parametrize(
    "args", [("verify",), ("diff", "a"), ("show",), ("report", "x"), ("shwo",)]
)
def test_usage_errors(genie: Run, args: tuple[str, ...]) -> None:
    assert genie("plan", *args).code == 2
