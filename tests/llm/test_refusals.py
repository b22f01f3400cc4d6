"""What a user sees when a language model cannot be compiled; kept under golden/errors/llm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from genie.cli.render import render_error
from genie.testing.snapshots import golden_files
from genie_schemas.errors import GenieError, GenieErrors
from tests.llm.speakers import ROOT, SPEC, captured, code, replaced

PLAIN = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 2)

    def forward(self, image):
        return self.body(image)


def build():
    return Net().eval()
"""
UPDATE = "k, v = cache.update(self.layer, k, v)"
CALL = "        return self.head(x if cache is None else cache.last(x))"


@dataclass(frozen=True)
class Case:
    """A model and a spec that cannot be compiled, the error's code and the exit status."""

    code: str
    status: int
    model: str
    spec: str = SPEC


CASES = {
    "no-inputs": Case("GEN0240", 4, PLAIN),
    "no-inputs-and-nothing-taken": Case(
        "GEN0240", 4, PLAIN.replace("(self, image)", "(self)").replace("(image)", "(torch.ones(8))")
    ),
    "sees-later-positions": Case("GEN0240", 4, replaced((", is_causal=mask is None", ""))),
    "sees-later-positions-and-said-to-be-one": Case(
        "GEN0243", 1, replaced((", is_causal=mask is None", "")), SPEC + "workload: llm\n"
    ),
    "no-scores-over-the-vocabulary": Case(
        "GEN0240", 4, replaced(("nn.Linear(width, vocabulary)", "nn.Linear(width, 3)"))
    ),
    "no-cache-taken": Case("GEN0241", 1, PLAIN, SPEC + "workload: llm\n"),
    "nothing-kept": Case("GEN0241", 1, replaced((UPDATE, "pass"))),
    "one-layer-not-kept": Case("GEN0241", 1, replaced(("self.layer, k", "self.layer * 2, k"))),
    "keys-laid-out-otherwise": Case(
        "GEN0241",
        1,
        replaced((UPDATE, "k = cache.update(self.layer, k.mT, v)[0].mT")),
    ),
    "cache-call-unknown": Case("GEN0241", 1, replaced(("cache.mask()", "cache.causal()"))),
    "positions-of-its-own": Case(
        "GEN0243",
        1,
        replaced(("if cache is None else cache.positions", "")),
    ),
    "cache-beyond-the-positions": Case("GEN0242", 4, code(), SPEC + "llm: {max_cache_len: 65}\n"),
    "prompt-beyond-the-positions": Case("GEN0127", 4, code(), SPEC + "llm: {max_prompt_len: 65}\n"),
    "prompt-beyond-the-cache": Case(
        "GEN0127", 4, code(), SPEC + "llm: {max_cache_len: 32, max_prompt_len: 33}\n"
    ),
    "llm-with-inputs": Case(
        "GEN0127",
        4,
        code(),
        SPEC + "llm: {max_cache_len: 32}\ninputs:\n  tokens: {dtype: int64, shape: [1, 4]}\n",
    ),
    "llm-of-a-vision-model": Case(
        "GEN0127", 4, code(), SPEC + "workload: vision\nllm: {max_cache_len: 32}\n"
    ),
    "forward-raises": Case(
        "GEN0202", 1, replaced((CALL, "        raise ValueError('no such head')"))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_clear(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    with pytest.raises((GenieError, GenieErrors)) as caught:
        captured(Path(), case.model, case.spec)
    error = caught.value
    golden = snapshot.use_extension(golden_files(ROOT / "golden" / "errors" / "llm", "txt"))
    assert render_error(error, colour=False) + "\n" == golden(name=name)
    assert (error.code, error.exit_code) == (case.code, case.status)
    assert error.remedy


def test_inputs_in_the_spec_compile_the_forward(tmp_path: Path) -> None:
    spec = SPEC + "workload: llm\ninputs:\n  tokens: {dtype: int64, shape: [1, 4]}\n"
    entries = captured(tmp_path, code(), spec)
    assert list(entries.graphs) == ["forward"]
    assert not entries.states
    assert not entries.loops
