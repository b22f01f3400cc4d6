"""Families and programs on their whole way; `make compatibility` attempts every one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from genie.client import Session
from tests.compat.attempt import attempt_family, session
from tests.compat.programs import PROGRAMS, attempt_program

FAMILIES = ("bert", "gpt2", "mixtral", "mamba", "vit", "clip", "whisper", "patchtst")
"""A few of every kind, in a minute; docs/compatibility.md has every other one."""

KNOWN = {"batch_norm_with_cumulative_average": "GEN0220"}
"""Programs that cannot be compiled, and the code that says so."""


@pytest.fixture(scope="module")
def runtime() -> Iterator[Session]:
    threads, fast = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    with session() as made:
        yield made
    torch.set_num_threads(threads)
    torch.backends.mha.set_fastpath_enabled(fast)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str, runtime: Session) -> None:
    outcome = attempt_family(name, runtime)
    assert outcome.works, outcome
    assert outcome.batch == "any"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, runtime: Session) -> None:
    outcome = attempt_program(name, runtime)
    if name in KNOWN:
        assert outcome.code == KNOWN[name], outcome
    else:
        assert outcome.works, outcome
