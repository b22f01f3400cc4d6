"""Modules of one's own: the example of docs/llm.md, and what its states and bounds become."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genie.capture.llm.limits import Layer, Limits, limits
from genie_schemas.spec import Llm
from tests.capture.compiling import compile_module
from tests.llm.running import generated, spec
from tests.llm.speakers import SPEC, captured, code, loaded, replaced, write


def alone(model: torch.nn.Module, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens by full forwards without a cache."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_the_example_is_short_and_generates_as_it_does_without_a_cache(tmp_path: Path) -> None:
    text = code()
    lines = text.splitlines()
    assert sum("cache" in line for line in lines) <= 10, "what the protocol adds"
    write(tmp_path, text, SPEC)
    model, _ = loaded(tmp_path)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    made = compile_module(model, spec(max_batch=3))
    prompts = [[5, 9, 1, 33], [7], [2, 2, 60, 8, 41, 3]]
    expected = [alone(model, prompt, 30) for prompt in prompts]
    found = generated(made, prompts, 30)
    for row, wanted in zip(found, expected, strict=True):
        end = wanted.index(0) + 1 if 0 in wanted else len(wanted)
        assert row == wanted[:end] + [-1] * (30 - end)
    assert len({token for row in expected for token in row}) > 15


def test_states_and_sizes_follow_the_model_and_the_section(tmp_path: Path) -> None:
    entries = captured(tmp_path, code(), SPEC + "llm: {max_cache_len: 32, max_batch: 1}\n")
    assert {n: (s.update, s.value.type) for n, s in entries.states.items()} == {
        "cache.length": ("replace", "i64[batch]"),
        "cache.0.k": ("append", "f32[batch,4,32,8]"),
        "cache.0.v": ("append", "f32[batch,4,32,8]"),
        "cache.1.k": ("append", "f32[batch,4,32,8]"),
        "cache.1.v": ("append", "f32[batch,4,32,8]"),
    }
    assert entries.dims == (("batch", 1, 1), ("prompt", 1, 32))
    sample = entries.loops["generate"].sample
    assert sample is not None
    assert (sample.capacity, sample.eos, sample.pad) == (32, [0], 0)


def test_a_cache_has_the_models_dtype_and_logits_are_floats(tmp_path: Path) -> None:
    half = code().replace(".eval()", ".eval().to(torch.bfloat16)")
    entries = captured(tmp_path, half)
    assert {s.value.type for s in entries.states.values()} == {
        "i64[batch]",
        "bf16[batch,4,64,8]",
    }
    for graph in entries.graphs.values():
        (logits,) = graph.outputs
        assert graph.table[logits.value or ""].type == "f32[batch,97]"


def test_a_window_hides_what_lies_before_it(tmp_path: Path) -> None:
    windowed = replaced(
        ("cache.mask()", "cache.mask(4)"),
        (
            "mask = None if cache is None",
            "order = torch.arange(tokens.shape[1])\n"
            "        near = (order <= order[:, None]) & (order > order[:, None] - 4)\n"
            "        mask = near if cache is None",
        ),
    )
    entries = captured(tmp_path, windowed)
    assert list(entries.graphs) == ["prefill", "decode"], "cache and forward agree"


def test_one_name_for_two_lifted_tensors_becomes_two(tmp_path: Path) -> None:
    """Each graph counts what it lifts: the plan holds both, under names of their own."""
    text = replaced(
        (
            "x = self.words(tokens) + self.places(places)",
            "x = self.words(tokens) + self.places(places)\n"
            "        if cache is not None and tokens.shape[1] != 1:\n"
            "            x = x * torch.tensor([1.0])\n"
            "        x = x * torch.tensor([1.0, 1.0] * 16)",
        )
    )
    entries = captured(tmp_path, text)
    prefill, decode = entries.graphs.values()
    lifted = [
        {c.name: c.digest for c in g.constants if c.kind == "lifted"} for g in (prefill, decode)
    ]
    assert [len(found) for found in lifted] == [2, 1]
    assert all(lifted[0].get(n, d) == d for n, d in lifted[1].items())
    assert all(entries.constants[n].digest == d for found in lifted for n, d in found.items())


LAYER = Layer(4, 8, 8, torch.float32)


@pytest.mark.parametrize(
    ("llm", "positions", "layers", "expected"),
    [
        ({}, 64, 1, Limits(64, 64, 8)),
        ({}, 2048, 1, Limits(2048, 1024, 8)),
        ({}, 131072, 1, Limits(4096, 1024, 8)),
        ({}, None, 1, Limits(4096, 1024, 8)),
        ({}, 4096, 1024, Limits(4096, 1024, 1)),
        ({}, 4096, 256, Limits(4096, 1024, 4)),
        ({"max_cache_len": 100000}, None, 1, Limits(100000, 1024, 8)),
        ({"max_cache_len": 40, "max_batch": 64}, 64, 1, Limits(40, 40, 64)),
    ],
)
def test_bounds_follow_the_model_where_the_spec_says_nothing(
    llm: dict[str, int], positions: int | None, layers: int, expected: Limits
) -> None:
    assert limits(Llm(**llm), positions, [LAYER] * layers, "spec.yaml") == expected
