"""What recording costs the program: an operator alone, a loop in Python, whole models.

The time of `…/us_per_op` is the client's alone: nothing is computed while it is measured. Memory is
what the recorder holds for a graph, against the bytes of the model's weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from genie.bench.measure import alternate, median_ratio
from genie.bench.report import Row, median_row
from genie.bench.suites import Unavailable

if TYPE_CHECKING:
    import torch

CHAIN = 1000


def capturing(quick: bool) -> list[Row]:
    """Rows cpp-loop/relu, python-loop/add, gpt2-shaped/forward, loop-body, export/*."""
    import torch

    try:
        import genie.lazy
    except ImportError as error:  # pragma: no cover - a build without torch
        raise Unavailable(str(error)) from None
    rounds = 20 if quick else 100
    with torch.no_grad():
        rows = [*_loops(rounds), *_model(rounds)]
        rows += _warm(5 if quick else 20)
    genie.lazy.synchronize()
    return rows + _exporting(quick)


def _loops(rounds: int) -> list[Row]:
    import torch

    import genie.lazy
    from genie.lazy._setup import recorder

    chain = getattr(recorder(), "chain", None)  # a loop in C++, which the recorder in Python lacks
    x = torch.ones(8, 8).to("genie")

    def python() -> None:
        value = x
        for _ in range(CHAIN):
            value = value + 1.0

    native, loop = [], []
    for turn in range(rounds + 2):
        each = chain(x, CHAIN) if chain is not None else 0.0
        genie.lazy.synchronize()
        start = time.perf_counter()
        python()
        spent = (time.perf_counter() - start) * 1e6 / CHAIN
        genie.lazy.synchronize()
        if turn >= 2:
            native.append(each)
            loop.append(spent)
    rows = [median_row("python-loop/add", "us_per_op", "µs", loop)]
    if chain is not None:
        rows.insert(0, median_row("cpp-loop/relu", "us_per_op", "µs", native))
    return rows


def _model(rounds: int) -> list[Row]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    import genie.lazy
    from genie.lazy._setup import recorder

    config = GPT2Config(
        n_embd=256, n_layer=12, n_head=8, vocab_size=1000, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).train(False)
    weights = sum(p.nbytes for p in model.parameters())
    model = model.to("genie")
    ids = torch.zeros(1, 64, dtype=torch.long).to("genie")
    samples, ops = [], 0
    for turn in range(max(5, rounds // 4) + 2):
        before = recorder().counts()["ops_intercepted"]
        start = time.perf_counter()
        out = model(input_ids=ids, use_cache=False).logits
        spent = (time.perf_counter() - start) * 1e6
        ops = recorder().counts()["ops_intercepted"] - before
        held = recorder().trace_bytes()
        del out
        genie.lazy.synchronize()
        if turn >= 2:
            samples.append(spent / ops)
    share = 100 * held / weights
    return [
        *_boundaries(lambda: model(input_ids=ids, use_cache=False).logits, max(60, rounds)),
        median_row("gpt2-shaped/forward", "us_per_op", "µs", samples),
        Row("gpt2-shaped/forward", "ops", ops, "ops", (ops,)),
        Row("gpt2-shaped/forward", "trace_bytes", held, "B", (held,)),
        Row("gpt2-shaped/forward", "trace_percent_of_weights", share, "%", (share,)),
    ]


def _boundaries(forward: Callable[[], torch.Tensor], rounds: int) -> list[Row]:
    """What noting module boundaries adds to a forward pass, and its share of the whole run.

    Only recording differs, so that is what is timed with and without the hooks, in turn: the
    difference of a round's two, over that round's run (recording, running, one value back).
    """
    from genie.lazy._setup import modules

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        out = forward()
        recorded = time.perf_counter()
        out[0, 0, 0].item()
        return recorded - start, time.perf_counter() - start

    added, shares = [], []
    for turn in range(rounds + 3):
        if turn % 2:
            there, whole = run()
            with modules().away():
                away, _ = run()
        else:
            with modules().away():
                away, _ = run()
            there, whole = run()
        if turn >= 3:
            added.append(1e6 * (there - away))
            shares.append(100 * (there - away) / whole)
    return [
        median_row("gpt2-shaped/forward", "module_hooks_us", "µs", added),
        median_row("gpt2-shaped/forward", "module_hooks_percent", "%", shares),
    ]


def _warm(rounds: int) -> list[Row]:
    """A loop body again and again, beside its own plan run by the session alone."""
    import torch

    import genie.lazy
    from genie.lazy._setup import runner

    width = 1024
    model = torch.nn.Sequential(
        *(torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU()) for _ in range(8))
    ).to("genie")
    x = torch.ones(256, width).to("genie")

    def body() -> None:
        model(x)[0, 0].item()

    for _ in range(3):
        body()
    taken = alternate([body, runner().repeat], rounds)
    genie.lazy.synchronize()
    rows = [
        median_row("loop-body/lazy", "step_ms", "ms", [1e3 * s for s in taken[0]]),
        median_row("loop-body/plan", "step_ms", "ms", [1e3 * s for s in taken[1]]),
    ]
    rows[0] = rows[0].against("loop-body/plan", median_ratio(taken[0], taken[1]))
    return rows


def _exporting(quick: bool) -> list[Row]:
    """Seconds to the training IR of models of growing size."""
    import torch
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    class Bert(torch.nn.Module):
        def __init__(self, config: BertConfig) -> None:
            super().__init__()
            self.model = BertModel(config).train(False)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(input_ids=ids).last_hidden_state
            return found

    class Gpt2(torch.nn.Module):
        def __init__(self, config: GPT2Config) -> None:
            super().__init__()
            self.model = GPT2LMHeadModel(config).train(False)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
            return found

    models: dict[str, Callable[[], torch.nn.Module]] = {"bert-base": lambda: Bert(BertConfig())}
    if not quick:
        models["gpt2"] = lambda: Gpt2(GPT2Config())
    rows = []
    for name, make in models.items():
        model = make()
        ids = torch.zeros(2, 32, dtype=torch.long)
        samples = []
        for _ in range(1 if quick else 3):
            start = time.perf_counter()
            torch.export.export(model, (ids,), strict=False)
            samples.append(time.perf_counter() - start)
        count = sum(p.numel() for p in model.parameters())
        rows.append(median_row(f"export/{name}", "seconds", "s", samples))
        rows.append(Row(f"export/{name}", "parameters", count, "parameters", (count,)))
    return rows
