"""Tokens of compiled language models against the library's own greedy generation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from genie_schemas.expr import parse
from genie_schemas.plan import ComputeStep, LoadStep, TransferStep
from genie_schemas.types import parse_type
from genie_schemas.verify.dataflow import type_of
from tests.capture.compiling import Compiled, compile_module
from tests.llm.running import generated, greedy, spec

# A randomly initialised model repeats two tokens unless its weights are wide and untied.
WIDE: dict[str, Any] = {
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 0,
    "vocab_size": 500,
}
ROTARY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    **WIDE,
}


def gpt2() -> Any:
    config = transformers.GPT2Config(n_layer=2, n_head=4, n_embd=64, n_positions=512, **WIDE)
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**ROTARY))


def qwen2() -> Any:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**ROTARY))


def mixtral() -> Any:
    config = transformers.MixtralConfig(num_local_experts=4, num_experts_per_tok=2, **ROTARY)
    return transformers.MixtralForCausalLM(config)


def mistral() -> Any:
    """A window shorter than the prompt: keys fall out of it in prefill and in decode."""
    config = transformers.MistralConfig(sliding_window=12, **ROTARY)
    return transformers.MistralForCausalLM(config)


def prompts(*lengths: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(1, 500, n).tolist() for n in lengths]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def compiled(build: Callable[[], Any]) -> Compiled:
    torch.manual_seed(3)
    return compile_module(build().eval(), spec(max_cache_len=384, max_prompt_len=32, max_batch=4))


@pytest.mark.parametrize("build", [gpt2, llama, qwen2, mixtral], ids=lambda b: b.__name__)
def test_256_tokens_equal_the_librarys(build: Callable[[], Any]) -> None:
    made = compiled(build)
    (prompt,) = prompts(17)
    expected = greedy(made.model, prompt, 256)
    assert len(set(expected)) > 50, "too monotonous to show a lost cache"
    assert generated(made, [prompt], 256) == [expected]


@pytest.mark.parametrize("build", [gpt2, mistral], ids=lambda b: b.__name__)
def test_rows_of_unequal_prompts_equal_each_alone(build: Callable[[], Any]) -> None:
    made = compiled(build)
    rows = prompts(17, 1, 30, 9)
    assert generated(made, rows, 30) == [greedy(made.model, row, 30) for row in rows]


def test_two_devices_keep_the_cache_of_their_own_layers() -> None:
    torch.manual_seed(3)
    model = llama().eval()
    stages = [
        ("d0", ["model.embed_tokens", "model.layers.0"]),
        ("d1", ["model.layers.1", "model.norm", "lm_head"]),
    ]
    made = compile_module(model, spec(stages, max_cache_len=64, max_prompt_len=32, max_batch=4))
    rows = prompts(17, 5)
    assert generated(made, rows, 20) == [greedy(model, row, 20) for row in rows]
    plan = made.plan
    assert {n: s.device for n, s in plan.state.items()} == {
        "cache.length": "d0",
        "cache.0.k": "d0",
        "cache.0.v": "d0",
        "cache.1.k": "d1",
        "cache.1.v": "d1",
    }
    (token,) = plan.entrypoints["decode"].inputs
    assert token.device == "d1", "where the logits are made"
    moved = [s for s in plan.steps if isinstance(s, TransferStep) and s.id.startswith("decode/")]
    kinds = {s.id: parse_type(type_of(plan, s.reads[0]) or "") for s in moved}
    whole = [(s.src, s.dst, s.reads[0]) for s in moved if kinds[s.id].dtype in ("i64", "bool")]
    assert whole == [("d1", "d0", "token"), ("d0", "d1", "decode/clone")], "no mask, no position"


def test_queries_of_a_group_share_their_keys() -> None:
    """Nothing in a decode step is as large as keys written out for each head would be."""
    plan = compiled(llama).plan
    steps = [s for s in plan.steps if isinstance(s, ComputeStep) and s.id.startswith("decode/")]
    ops = {op.op for step in steps for op in plan.programs[step.program].ops}
    assert "aten.scaled_dot_product_attention.default" in ops
    most = max(
        parse(plan.programs[s.program].scratch_bytes).bounds(plan.ranges())[1] for s in steps
    )
    cache = parse_type(plan.state["cache.0.k"].type).nbytes({"batch": plan.dims["batch"].max})
    assert most < cache


def test_one_plan_holds_weights_and_repeated_layers_once() -> None:
    plan = compiled(llama).plan
    digests = [constant.digest for constant in plan.constants.values()]
    assert len(set(digests)) == len(digests)
    loaded = {
        entry: {
            n
            for s in plan.steps
            if isinstance(s, LoadStep) and s.id in point.steps
            for n in s.reads
        }
        for entry, point in plan.entrypoints.items()
    }
    assert loaded["prefill"] & loaded["decode"] > {"lm_head.weight", "model.embed_tokens.weight"}
    for entry in ("prefill", "decode"):
        layers = [
            step.program
            for step in plan.steps
            if isinstance(step, ComputeStep) and step.id.startswith(f"{entry}/model.layers.")
        ]
        assert len(layers) == 2
        assert len(set(layers)) == 1
