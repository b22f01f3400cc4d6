"""Training loops nobody adapted: a step on the device equals a step on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import genie.lazy

Optimizer = Callable[..., torch.optim.Optimizer]


def digits_cnn() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),  # batch norm would leave it only noise
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(128),
        nn.Linear(128, 10),
    )


def train(
    model: nn.Module, make: Optimizer, device: str, steps: int, **options: float
) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(2)
    x, y = torch.randn(16, 1, 8, 8).to(device), torch.randint(0, 10, (16,)).to(device)
    optimizer = make(model.parameters(), **options)
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item(), {n: t.detach().cpu() for n, t in model.state_dict().items()}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
        (torch.optim.Adam, {"lr": 1e-3}),
        (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1}),
    ],
)
def test_steps_equal_those_of_the_cpu(make: Optimizer, options: dict[str, float]) -> None:
    model = digits_cnn()
    wanted, weights = train(copy.deepcopy(model), make, "cpu", 3, **options)
    found, there = train(model.to("genie"), make, "genie", 3, **options)
    assert abs(found - wanted) < 1e-5
    for name, tensor in weights.items():
        torch.testing.assert_close(there[name], tensor, rtol=0, atol=1e-5)
    assert genie.lazy.stats()["host_fallbacks"] == 0, genie.lazy.explain()


def test_a_loop_that_looks_at_nothing_runs_the_same_plan_every_step() -> None:
    model = digits_cnn().to("genie")
    train(model, torch.optim.SGD, "genie", 8, lr=0.01)
    found = genie.lazy.stats()
    assert found["graph_cache_hits"] >= 3, found
    assert found["synchronisations"] <= 40


@pytest.mark.parametrize(
    ("norm", "train", "dtype"),
    [
        (lambda: nn.BatchNorm1d(16), False, torch.float32),
        (lambda: nn.BatchNorm1d(16), True, torch.bfloat16),
        (lambda: nn.LayerNorm(16), True, torch.bfloat16),
    ],
)
def test_a_loss_may_be_looked_at_before_a_normalisation_goes_backward(
    norm: Callable[[], nn.Module], train: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(16, 16), norm(), nn.Linear(16, 1)).to(dtype).train(train)
    x = torch.randn(8, 16, dtype=dtype)
    other = copy.deepcopy(model).to("genie")
    for net, given in ((model, x), (other, x.to("genie"))):
        loss = net(given).float().square().mean()
        assert loss.item() > 0  # from here on the device keeps what the backward pass needs
        loss.backward()
    limit = 1e-5 if dtype == torch.float32 else 3e-2
    for a, b in zip(other.parameters(), model.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=limit, atol=limit)


def test_gradients_flow_through_linear_and_attention() -> None:
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 16)
    other = copy.deepcopy(layer).to("genie")
    layer(x).square().mean().backward()
    other(x.to("genie")).square().mean().backward()
    for a, b in zip(other.parameters(), layer.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-5, atol=1e-5)


def test_mixed_precision_computes_in_the_lower_type() -> None:
    model = nn.Linear(32, 8).to("genie")
    x = torch.randn(4, 32)
    with torch.autocast("genie", torch.bfloat16):
        low = model(x.to("genie"))
        norm = nn.functional.softmax(low, -1)
    assert low.dtype == torch.bfloat16
    assert norm.dtype == torch.float32
    exact = nn.functional.linear(x, model.weight.cpu(), model.bias.cpu())
    torch.testing.assert_close(low.float().cpu(), exact, rtol=2e-2, atol=2e-2)
    low.float().sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.dtype == torch.float32
