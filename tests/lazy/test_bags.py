"""Embedding bags, whose kernels return other things for the backward pass on every device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import genie.lazy
from genie.bench.semantics.models import recsys
from genie_schemas.errors import GenieError

ROWS, WIDTH = 300, 16
"""A table of more than 4 KiB lies on the device: the host does not evaluate it by itself."""
IDS = torch.tensor([0, 7, 7, 2, 2, 299, 2, 1, 7])

BAGS: dict[str, dict[str, Any]] = {
    "sum": {"mode": "sum"},
    "mean": {"mode": "mean"},
    "max": {"mode": "max"},
    "sum-padded": {"mode": "sum", "padding_idx": 2},
    "mean-padded": {"mode": "mean", "padding_idx": 2},
    "max-padded": {"mode": "max", "padding_idx": 2},
    "double": {"mode": "sum", "dtype": torch.float64},
}


def step(net: nn.Module, run: Callable[[], Tensor], *others: Tensor) -> list[Tensor]:
    """One step of training: the result, the gradients of `others`, and the weights after it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    out = run()
    assert out.sum().item() != 0  # from here on the device keeps what the backward pass needs
    out.pow(2).sum().backward()
    optimizer.step()
    grads = [t.grad for t in others if t.grad is not None]
    return [t.detach().cpu() for t in (out, *grads, *net.parameters())]


def both(options: dict[str, Any], *given: Tensor, weights: Tensor | None = None) -> None:
    """A step on the device equals a step on the CPU, and asks the host for nothing."""
    torch.manual_seed(0)
    net, found = nn.EmbeddingBag(ROWS, WIDTH, **options), []
    for device in ("genie", "cpu"):
        bag = copy.deepcopy(net).to(device)
        run = partial(bag, *(t.to(device) for t in given))
        if weights is None:
            found.append(step(bag, run))
        else:
            own = weights.clone().to(device).requires_grad_()
            found.append(step(bag, partial(run, per_sample_weights=own), own))
    for made, expected in zip(*found, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    assert genie.lazy.stats()["host_fallbacks"] == 0, genie.lazy.explain()


@pytest.mark.parametrize("ends", [[0, 4, 4], [0, 0, 9]], ids=str)
@pytest.mark.parametrize("name", BAGS)
def test_a_step_equals_the_cpus(name: str, ends: list[int]) -> None:
    both(BAGS[name], IDS, torch.tensor(ends))


@pytest.mark.parametrize("name", BAGS)
def test_ids_in_rows(name: str) -> None:
    both(BAGS[name], IDS.view(3, 3))


@pytest.mark.parametrize("name", BAGS)
def test_the_last_offset_may_be_the_end(name: str) -> None:
    both(
        BAGS[name] | {"include_last_offset": True},
        IDS.to(torch.int32),
        torch.tensor([0, 4, 4, 9], dtype=torch.int32),
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["sum", "sum-padded"])
def test_a_weight_for_each_index(name: str, last: bool) -> None:
    ends = torch.tensor([0, 4, 4, 9] if last else [0, 4, 4])
    options = BAGS[name] | {"include_last_offset": last}
    both(options, IDS, ends, weights=torch.linspace(-1, 2, len(IDS)))


def test_gradients_by_frequency_are_an_embeddings() -> None:
    """A CPU's own bags divide by another index's frequency (pytorch/pytorch#190063)."""
    table, ids = torch.randn(ROWS, WIDTH), IDS.view(3, 3)
    here = table.clone().requires_grad_()
    looked_up = functional.embedding(ids, here, scale_grad_by_freq=True)
    looked_up.mean(1).pow(2).sum().backward()
    there = table.to("genie").requires_grad_()
    out = functional.embedding_bag(ids.to("genie"), there, mode="mean", scale_grad_by_freq=True)
    out.pow(2).sum().backward()
    assert here.grad is not None
    assert there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wants", [False, True], ids=["forward", "gradients"])
@pytest.mark.parametrize("mode", [0, 1, 2], ids=["sum", "mean", "max"])
def test_what_the_function_of_torch_returns_beside(mode: int, wants: bool) -> None:
    table = torch.randn(ROWS, WIDTH).to("genie").requires_grad_(wants)
    given = IDS.to("genie"), torch.tensor([0, 4, 4], device="genie")
    _, bag_of, sizes, maxima = torch.embedding_bag(table, *given, False, mode)
    assert bag_of.tolist() == [0, 0, 0, 0, 2, 2, 2, 2, 2]
    assert sizes.tolist() == [4, 0, 5]
    if mode == 2:
        rows = table.detach().cpu()[IDS[:4]]
        assert torch.equal(maxima[0].cpu(), IDS[:4][rows.argmax(0)])
    else:
        assert maxima.shape == (0,)


@pytest.mark.parametrize("index", [ROWS, -1])
def test_an_index_without_a_row_is_refused(index: int) -> None:
    table = torch.randn(ROWS, WIDTH).to("genie").requires_grad_()
    with pytest.raises(Exception, match="GEN0460"):
        functional.embedding_bag(torch.tensor([[index]]).to("genie"), table).sum().item()


def test_sparse_gradients_are_refused() -> None:
    bag = nn.EmbeddingBag(ROWS, WIDTH, sparse=True).to("genie")
    with pytest.raises(GenieError, match=r"GEN0261: no plan can hold the sparse gradient"):
        bag(IDS.view(3, 3).to("genie")).sum().backward()


def test_a_recommender_learns_as_on_a_cpu() -> None:
    torch.manual_seed(0)
    net, found = recsys.build(50), []
    given = torch.randn(5, 13), torch.randint(0, 50, (5, 13, 4)), torch.randint(0, 50, (5, 13, 4))
    for device in ("genie", "cpu"):
        model = copy.deepcopy(net).to(device)
        found.append(step(model, partial(model, *(t.to(device) for t in given))))
    for made, expected in zip(*found, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    assert genie.lazy.stats()["host_fallbacks"] == 0, genie.lazy.explain()
