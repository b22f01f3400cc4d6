"""The golden cases, shared by the small and the large examples so that both run in parallel."""

from __future__ import annotations

from pathlib import Path

import torch
from syrupy.assertion import SnapshotAssertion
from torch.utils import _pytree as pytree

from genie.testing.inputs import sample_inputs
from genie.testing.snapshots import golden_files
from genie_schemas import canonical
from genie_schemas.reader import read_plan
from genie_schemas.spec import Spec
from genie_schemas.verify import verify
from tests.llm.running import generated, greedy
from tests.golden.support import GOLDEN, SPECS, compiled, eager, execute


def check_golden(name: str, snapshot: SnapshotAssertion) -> None:
    """The compiler writes the golden bytes, the reader reads them and the verifier accepts them."""
    made = compiled(name)
    assert made.text == snapshot.use_extension(golden_files(GOLDEN, "plan.json"))(name=name)
    verify(read_plan(made.text, f"{name}.plan.json"))
    assert made.plan.name == name == SPECS[name].stem


def check_clean(name: str) -> None:
    """Nothing in a plan tells of the machine, the moment or the folder that it was made in."""
    data = canonical.loads(compiled(name).text)
    for text in _strings(data):
        assert not text.startswith(("/", "~", "file:")), text
        assert "/home/" not in text
        assert str(Path.cwd()) not in text
        assert "0x7f" not in text


def _strings(data: object) -> list[str]:
    if isinstance(data, str):
        return [data]
    if isinstance(data, dict):
        # Hex floats are the one thing that looks like an address.
        return [s for k, v in data.items() if k != "f" for s in (str(k), *_strings(v))]
    if isinstance(data, list):
        return [s for item in data for s in _strings(item)]
    return []


def check_equals_eager(name: str) -> None:
    """The plan's steps, run one by one with plain torch, give eager's bits at two sizes."""
    made = compiled(name)
    model = eager(made)
    if made.spec.infers_inputs:
        assert generated(made, PROMPTS, 24) == [ended(greedy(model, p, 24)) for p in PROMPTS]
        return
    for extents in sizes(made.spec):
        inputs = {n: torch.from_numpy(a) for n, a in sample_inputs(made.spec, extents).items()}
        with torch.no_grad():
            expected = [t for t in pytree.tree_leaves(model(**inputs)) if t is not None]
        actual = list(execute(made.plan, made.folder, inputs).values())
        assert len(actual) == len(expected) > 0
        for one, other in zip(actual, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other), (name, extents)


PROMPTS = [[5, 9, 1, 33], [7], [2, 2, 60, 8, 41, 3]]


def ended(tokens: list[int], count: int = 24) -> list[int]:
    """A row as the daemon reports it: -1 after its end."""
    return tokens + [-1] * (count - len(tokens))


def sizes(spec: Spec) -> list[dict[str, int]]:
    """Every dimension at its least, then each at another size of its own."""
    least = {name: dim.min for name, dim in spec.dims.items()}
    other = {n: min(d.max, max(d.min, 3) + i) for i, (n, d) in enumerate(spec.dims.items())}
    return [least, other]
