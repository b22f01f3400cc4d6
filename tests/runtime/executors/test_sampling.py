"""Drawing tokens: the generator is Philox by the paper, the distributions are those defined."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from genie_runtime.executors.sampling import Sampler, Uniforms, pick
from genie_runtime.ports import Generation
from genie_schemas.errors import GenieError

SCORES = np.array([0.0, 1.0, 2.0, 2.0, -1.0, 0.5, 1.5, -3.0], np.float32)
DRAWS = 4000
CHI_SQUARE = 24.3
"""The 0.999 quantile for 7 degrees of freedom; fewer degrees have lower ones. Seeds are fixed."""


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> int:
    """The first word of Philox-4x64-10, written down from Salmon et al. 2011."""
    mask = (1 << 64) - 1
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1 = (second >> 64) ^ c1 ^ k0, second & mask
        c2, c3 = (first >> 64) ^ c3 ^ k1, first & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return c0


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**16), st.integers(0, 2**20))
def test_uniforms_are_philox_by_counter(seed: int, row: int, index: int) -> None:
    numbers = Uniforms(seed)
    numbers.at(index, row)  # what was drawn before changes nothing
    word = philox((seed, 0), (1, 0, row, index))
    assert numbers.at(row, index) == (word >> 11) / 2**53


def probabilities(temperature: float, top_k: int, top_p: float) -> Any:
    """By the definitions, in f64."""
    scores = SCORES.astype(np.float64) / temperature
    if 0 < top_k < len(scores):
        scores[scores < np.sort(scores)[-top_k]] = -np.inf
    p = np.exp(scores - scores.max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(p[order])[:-1]])
    p[order[before >= top_p]] = 0
    return p / p.sum()


KINDS = list(itertools.product((0.5, 1.0, 3.0), (0, 1, 3, 8, 99), (0.3, 0.8, 1.0)))


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), KINDS)
def test_what_is_drawn_is_distributed_as_defined(
    temperature: float, top_k: int, top_p: float
) -> None:
    how = Generation(1, temperature=temperature, top_k=top_k, top_p=top_p)
    numbers = Uniforms(11)
    drawn = [pick(SCORES, how, numbers.at(0, index)) for index in range(DRAWS)]
    found = np.bincount(drawn, minlength=len(SCORES))
    wanted = probabilities(temperature, top_k, top_p) * DRAWS
    assert found[wanted == 0].sum() == 0
    there = wanted > 0
    assert ((found - wanted)[there] ** 2 / wanted[there]).sum() < CHI_SQUARE


def test_top_p_looks_beyond_the_likeliest_when_it_must() -> None:
    """10,000 equal scores: the nucleus is the first half of them."""
    flat, how = np.zeros(10_000, np.float32), Generation(1, temperature=1.0, top_p=0.5)
    assert pick(flat, how, 0.0) == 0
    assert pick(flat, how, 1 - 2**-53) == 4999


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40), st.floats(0, 1 - 2**-53))
def test_every_number_picks_a_token_with_weight(scores: list[float], uniform: float) -> None:
    array = np.array(scores, np.float32)
    for how in (
        Generation(1, temperature=1e-30),
        Generation(1, temperature=1.0, top_k=2, top_p=0.9),
        Generation(1, temperature=1e30),
    ):
        token = pick(array, how, uniform)
        assert 0 <= token < len(array)
        if how.temperature == 1e-30:
            assert array[token] == array.max()


def test_rows_are_drawn_by_themselves() -> None:
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(Generation(9, temperature=1.0, top_p=0.95, seed=3))
    together = sampler.draw(logits, 6, [False] * 5)
    assert sampler.draw(logits[:2], 6, [False, False]) == together[:2]
    assert sampler.draw(logits, 6, [True, False, False, True, False]) == [
        -1 if row in (0, 3) else token for row, token in enumerate(together)
    ]
    assert sampler.draw(logits, 7, [False] * 5) != together


def test_greedy_takes_the_first_of_the_highest() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0], [2.0, 2.0, 2.0], [1.0, 0.0, 4.0]])
    assert Sampler(Generation(1)).draw(logits, 0, [False, False, True]) == [1, 0, -1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_an_error(bad: float, snapshot: SnapshotAssertion) -> None:
    scores = torch.full((1, 4), bad if bad < 0 else 0.0)
    scores[0, 2] = bad
    with pytest.raises(GenieError) as caught:
        Sampler(Generation(1, temperature=1.0)).draw(scores, 0, [False])
    assert str(caught.value) == snapshot
