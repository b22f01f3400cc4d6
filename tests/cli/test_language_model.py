"""A language model of one's own on the command line: from model.py to tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.llm.speakers import SPEC, code, write

pytestmark = pytest.mark.usefixtures("warm")

Run = Callable[..., Any]
LLM = "llm: {max_cache_len: 40, max_prompt_len: 16, max_batch: 2}\n"


@pytest.mark.slow
def test_a_model_with_the_cache_protocol_generates(
    genie: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(), code(), SPEC + LLM)
    made = genie("compile", "model.py", "--spec", "spec.yaml", "-o", "lm.json")
    assert made.code == 0, made.err
    shown = genie("plan", "show", "lm.json").out
    assert "cache.0.k … cache.1.k  2 × f32[batch,4,40,8] on d0, append, starts as zeros" in shown
    assert "prefill, then decode until sampled; carries token; at most 40 tokens" in shown
    np.save("ids.npy", np.array([[5, 9, 1, 33], [2, 60, 8, 41]]))
    given = ("execute", "lm.json", "--input", "input_ids=ids.npy")
    done = genie(
        *given, "--entrypoint", "generate", "--set", "max_new_tokens=6", "--output", "t.st"
    )
    assert done.code == 0, done.err
    tokens = load_file("t.st")["tokens"]
    assert tokens.shape == (2, 6)
    assert len(set(tokens.ravel().tolist())) > 2
    against = ("--compare", "model.py", "--spec", "spec.yaml")
    refused = genie(*given, "--entrypoint", "prefill", *against)
    assert refused.code == 2
    assert "--compare runs the model's forward, not 'prefill'" in refused.err
