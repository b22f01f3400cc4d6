"""Asking a loop for tokens: what is wrong is told before anything is connected to or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from genie.client.generation import (
    check_loop,
    generation,
    parse_parameters,
    sample_of,
    with_lengths,
)
from genie.client.inputs import check_inputs
from genie.client.link import LoadedPlan, RunSpec
from genie.client.progress import Progress
from genie_runtime.plans import view
from genie_schemas.errors import GenieError
from genie_schemas.plan import ExecutionPlan, Sample
from tests.tiny_lm import padded, tiny_lm

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]


@pytest.fixture
def plan(tmp_path: Path) -> ExecutionPlan:
    return tiny_lm(tmp_path).plan


def ask(plan: ExecutionPlan, inputs: dict[str, Any], entrypoint: str, **parameters: Any) -> None:
    sample = sample_of(plan, entrypoint)
    checked = check_inputs(plan, entrypoint, with_lengths(plan, entrypoint, inputs))
    defaults = {"max_new_tokens": 8, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    check_loop(sample, generation(**{**defaults, **parameters}), checked.tensors["lengths"].array)


CASES: dict[str, dict[str, Any]] = {
    "no tokens": {"max_new_tokens": 0},
    "part of a token": {"max_new_tokens": 1.5},
    "more than the cache": {"max_new_tokens": 9999},
    "colder than greedy": {"temperature": -0.1},
    "no temperature": {"temperature": float("nan")},
    "a word": {"temperature": "hot"},
    "top_k": {"top_k": -1},
    "top_p of nothing": {"top_p": 0.0},
    "top_p of more than all": {"top_p": 1.01},
    "seed": {"seed": -1},
    "another entry point": {"entrypoint": "decode"},
    "a misspelt entry point": {"entrypoint": "genrate"},
    "an empty prompt": {"lengths": [0, 5]},
    "longer than the batch is wide": {"lengths": [3, 6]},
    "lengths of another batch": {"lengths": [3]},
    "a prompt beyond its range": {"input_ids": np.zeros((2, 17), np.int64), "lengths": None},
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told(plan: ExecutionPlan, name: str, snapshot: SnapshotAssertion) -> None:
    case = dict(CASES[name])
    inputs = padded(PROMPTS)
    if "input_ids" in case:
        inputs["input_ids"] = case.pop("input_ids")
    if "lengths" in case:
        given = case.pop("lengths")
        inputs.pop("lengths")
        if given is not None:
            inputs["lengths"] = np.array(given, np.int64)
    with pytest.raises(GenieError) as caught:
        ask(plan, inputs, case.pop("entrypoint", "generate"), **case)
    assert caught.value.exit_code == 2
    assert str(caught.value) == snapshot


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_token": "3"},
        {"colour": "blue", "max_new_tokens": "3"},
        {"max_new_tokens": "3.5"},
        {"max_new_tokens": "3", "temperature": "warm"},
        {"top_k": "4"},
    ],
)
def test_settings_of_the_command_line(
    settings: dict[str, str], snapshot: SnapshotAssertion
) -> None:
    with pytest.raises(GenieError) as caught:
        parse_parameters(settings)
    assert caught.value.exit_code == 2
    assert str(caught.value) == snapshot


def test_numbers_are_taken_as_they_are() -> None:
    text = {"max_new_tokens": "3", "temperature": "0.1", "top_k": "5", "top_p": "1", "seed": "7"}
    assert parse_parameters(text) == {
        "max_new_tokens": 3,
        "temperature": 0.1,
        "top_k": 5,
        "top_p": 1.0,
        "seed": 7,
    }
    made = generation(np.int64(3), np.float32(0.5), 0, 1, 0)
    assert (made.max_new_tokens, made.temperature) == (3, 0.5)


def test_lengths_left_out_are_the_width(plan: ExecutionPlan) -> None:
    inputs = {"input_ids": np.zeros((2, 5), np.int64)}
    for entry in ("generate", "prefill"):
        assert with_lengths(plan, entry, inputs)["lengths"].tolist() == [5, 5]  # type: ignore[union-attr]
    assert with_lengths(plan, "decode", {}) == {}
    for odd in ({"input_ids": np.zeros(5, np.int64)}, {"ids": np.zeros((2, 5), np.int64)}):
        assert with_lengths(plan, "generate", odd) == odd  # check_inputs says what is wrong


# -- the tokens so far -------------------------------------------------------------------------


def progress(count: int, told: list[Any]) -> Progress:
    sample = Sample(logits="logits", token="token", lengths="lengths", capacity=48, eos=[9], pad=0)
    wanted = generation(count, 0.0, 0, 1.0, 0)
    return Progress(2, sample, wanted, lambda index, tokens: told.append((index, tokens)))


def forced(made: Progress, plan: ExecutionPlan) -> Any:
    inputs = check_inputs(plan, "generate", padded(PROMPTS))
    loaded = LoadedPlan(view(plan, ""), Path())
    spec = made.resumed(RunSpec(loaded, "generate", "r", False, None, inputs))
    assert spec.generation is not None
    return spec.generation.forced


def test_what_came_is_told_once_and_forced_again(plan: ExecutionPlan) -> None:
    told: list[Any] = []
    made = progress(4, told)
    assert forced(made, plan) == ()
    made.take(0, [(1, 2), (3, 4)])
    assert forced(made, plan) == ((1, 3), (2, 4))
    made.take(1, [(3, 4), (9, 5)])  # from an attempt that went back
    assert told == [(0, (1, 2)), (1, (3, 4)), (2, (9, 5))]
    made.take(3, [(-1, 6)])
    assert made.tokens().array.tolist() == [[1, 3, 9, 0], [2, 4, 5, 6]]
    assert told[-1] == (3, (0, 6))
    assert forced(made, plan) == ((1, 3, 9), (2, 4, 5))  # the end has to be drawn again


def test_all_rows_ended_is_an_end(plan: ExecutionPlan) -> None:
    made = progress(10, [])
    made.take(0, [(9, 2), (-1, 9)])
    assert forced(made, plan) == ((9,), (2,))


@pytest.mark.parametrize(("first", "step"), [(2, (1, 1)), (0, (1, 3))])
def test_tokens_that_do_not_fit_are_refused(first: int, step: tuple[int, int]) -> None:
    made = progress(4, [])
    made.take(0, [(1, 2)])
    with pytest.raises(GenieError) as caught:
        made.take(first, [step])
    assert caught.value.code == "GEN0509"
