"""`genie execute` with an entry point that generates: streams, reports, errors, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie.client.files import load_inputs
from tests.cli.conftest import Result
from tests.daemons import Daemons, daemons, until
from tests.plans_by_hand import HandMade
from tests.runtime.lm import PROMPTS, held, slow_lm, wanted
from tests.tiny_lm import padded, tiny_lm

__all__ = ["daemons"]

Genie = Callable[..., Result]


@pytest.fixture
def made(genie: Genie) -> HandMade:
    """A plan, ids.npy and lengths.npy, in the working directory."""
    for name, array in padded(PROMPTS).items():
        np.save(f"{name}.npy", array)
    return tiny_lm(Path())


def argv(made: HandMade, *more: str) -> list[str]:
    inputs = ["--input", "input_ids=input_ids.npy", "--input", "lengths=lengths.npy"]
    return ["execute", str(made.path), "--entrypoint", "generate", *inputs, *more]


def test_tokens_are_printed_as_they_come(genie: Genie, made: HandMade, daemons: Daemons) -> None:
    columns = list(zip(*wanted(made, 5), strict=True))
    lines = ["\t".join(map(str, column)) for column in columns]
    on = ["--on", daemons.start().endpoint]
    for where in ([], on):
        plain = genie(*argv(made, *where, "--set", "max_new_tokens=5", "--stream"))
        assert (plain.code, plain.out.splitlines()) == (0, lines)
        assert "5 tokens" in plain.err
        result = genie(*argv(made, *where, "--set", "max_new_tokens=5", "--stream", "--json"))
        *steps, last = map(json.loads, result.out.splitlines())
        assert steps == [{"index": i, "tokens": list(c)} for i, c in enumerate(columns)]
        assert last["outputs"]["tokens"]["shape"] == [2, 5]
        assert set(last["generation"]) == {"tokens", "ttft_ms", "ms_per_token", "client"}
    text = genie(*argv(made, "--set", "max_new_tokens=5", "--output", "o.safetensors"))
    assert "tokens  int64[2, 5]" in text.out
    assert load_inputs(Path("o.safetensors"))["tokens"].array.tolist() == wanted(made, 5)
    shown = json.loads(genie("status", *on, "--json").out)
    assert shown["states"] == {"count": 0, "bytes": 0}
    assert (shown["telemetry"]["phase_decode"], shown["telemetry"]["tokens"]) == (2, 20)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "max_new_tokens=9999"], "cache"),
        (["--set", "max_new_tokens=5", "--set", "top_p=2"], "top_p = 2.0 is out of range"),
        (
            ["--set", "max_new_tokens=5", "--set", "colour=red"],
            "max_new_tokens, temperature, top_k",
        ),
        ([], "max_new_tokens is not given"),
        (["--set", "max_new_tokens=5", "--entrypoint", "generat"], "did you mean 'generate'"),
        (["--entrypoint", "prefill", "--set", "max_new_tokens=5"], "takes no --set"),
        (["--entrypoint", "prefill", "--stream"], "--stream prints tokens"),
        (["--set", "max_new_tokens=5", "--compare", "m.py", "--spec", "s.yaml"], "--compare"),
    ],
)
def test_what_cannot_be_generated_says_why(
    genie: Genie, made: HandMade, more: list[str], words: str
) -> None:
    # Nobody listens there: a wrong call does not even connect.
    result = genie(*argv(made, "--on", "unix:///nobody.sock", *more))
    assert result.code == 2, result.err
    assert words in result.err
    assert "Traceback" not in result.err


def test_ctrl_c_cancels_it_on_the_daemon(
    genie: Genie, daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = slow_lm(tmp_path, monkeypatch, work=512)
    np.save("input_ids.npy", np.array([[1, 2, 3]]))
    daemon = daemons.start()
    for on in ([], ["--on", daemon.endpoint]):
        client = subprocess.Popen(
            [
                *(sys.executable, "-m", "genie.cli", "execute", str(made.path), *on),
                *("--entrypoint", "generate", "--input", "input_ids=input_ids.npy"),
                *("--set", "max_new_tokens=45", "--stream"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        assert client.stdout.readline().strip().isdigit()
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=60)
        assert client.returncode == 130, err
        assert len(out.splitlines()) < 40
        assert "Traceback" not in err
    until(lambda: held(daemon) == (0, 0, 0))
