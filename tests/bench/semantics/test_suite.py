"""The suite for real but small: daemons, servers, the relay, and what it counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genie.bench.report import Row
from genie.bench.semantics._cases import MODELS, Case, Model
from genie.bench.semantics._contest import MODES, Machines
from genie.bench.semantics._generation import Dialogue
from genie.bench.semantics._suite import Scope, one
from genie.client.session import load_plan
from genie.driver import compile_model
from genie.model.loader import load_model
from genie.spec import load_spec

SMALL = Scope(
    (0, 2), rounds=1, naive=1, counted=2, long=5, tokens=3, naive_tokens=2, counted_tokens=3
)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with Machines() as found:
        yield found


@pytest.mark.slow
def test_a_lookup_runs_where_its_table_lives(machines: Machines) -> None:
    found: dict[str, Row] = {r.metric: r for r in one(Model("recsys"), 2, machines, SMALL)}
    for base, most in (("naive", 0.10), ("blind", 0.70)):
        assert 0 < found[f"traffic_vs_{base}"].value <= most
    assert 0 < found["bytes_per_operation/blind"].value <= 128
    # Ids and dense features go there and scores come back: no row of a table visits the client.
    ids, dense, rows = 2 * 128 * 13 * 4 * 8, 128 * 13 * 4, 128 * 13 * 64 * 4
    client = found["client_bytes/genie"].value
    assert ids + dense < client < ids + dense + 16_384
    # Half of the sums cross between the daemons, once, and twice through the blind client.
    assert client + rows < found["traffic_bytes/genie"].value < client + rows + 16_384
    assert found["client_bytes/blind"].value > ids + dense + 2 * rows
    assert {f"latency_ms/{mode}/{trip}" for mode in MODES for trip in (0, 2)} <= set(found)


class _Small(Model):
    """The language model with one layer of little width on each device."""

    def __init__(self, folder: Path) -> None:
        self.name = "causal"
        text = (MODELS / "causal-two.yaml").read_text()
        text = text.replace(
            "{entry: build}", "{entry: build, args: {layers: 2, width: 64, heads: 2}}"
        )
        text = text.replace("h.0, transformer.h.1", "h.0").replace("h.2, transformer.h.3", "h.1")
        self.path = folder / "causal.yaml"
        self.path.write_text(text.replace("256", "64").replace("128", "32"))
        self.spec = load_spec(self.path, {}).spec
        source = MODELS / "causal.py"
        self.module = load_model(source, source.name, self.spec, None)


@pytest.mark.slow
def test_all_modes_say_the_same(machines: Machines, tmp_path: Path) -> None:
    model = _Small(tmp_path)
    compile_model(MODELS / "causal.py", model.path, tmp_path / "causal.plan.json")
    case = Case("llm-decode", 2, load_plan(tmp_path / "causal.plan.json"))
    torch.set_num_threads(1)
    wires = machines.wires
    with Dialogue(case, model, machines, prompt=5) as dialogue:
        said = {mode: dialogue.run[mode](12) for mode in MODES}
        before = wires.traffic("genie")
        counted = dialogue.counted["genie"](12)
        spent = wires.traffic("genie") - before
    assert len(said["local"].tokens) == 12
    assert len(set(said["local"].tokens)) > 2
    assert {spoken.tokens for spoken in said.values()} == {counted.tokens, said["local"].tokens}
    assert all((spoken.token_ms or 0) > 0 for spoken in said.values())
    assert (said["genie"].daemon_ms or 0) > 0
    # Hidden rows and tokens pass between the daemons; the client gets tokens alone.
    assert spent.between > 12 * 64 * 4


def test_options_of_other_suites_are_refused(tmp_path: Path) -> None:
    genie = Path(sys.executable).parent / "genie"
    argv = [genie, "bench", "startup", "--write", tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "only the suite semantics has a page" in done.stderr
