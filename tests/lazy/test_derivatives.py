"""Derivatives that torch.func and autograd compose: also of each example, and of derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import func, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import genie.lazy  # noqa: F401 - the device

Tensors = Any


def cubes(x: torch.Tensor) -> torch.Tensor:
    return (x**3).sum()


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))


def of_each_example(x: torch.Tensor) -> Tensors:
    model = net().to(x.device)
    given = {name: p.detach() for name, p in model.named_parameters()}
    targets = torch.tensor([0, 1, 2]).to(x.device)

    def loss(parameters: dict[str, torch.Tensor], row: torch.Tensor, target: torch.Tensor) -> Any:
        return functional.cross_entropy(func.functional_call(model, parameters, (row,)), target)

    return list(func.vmap(func.grad(loss), (None, 0, 0))(given, x, targets).values())


def penalised(x: torch.Tensor) -> Tensors:
    model, x = net().to(x.device), x.requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (slope.norm(2, 1) - 1).pow(2).mean().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def checkpointed(x: torch.Tensor) -> Tensors:
    model, x = net().to(x.device), x.requires_grad_()
    checkpoint(model, x, use_reentrant=False).sum().backward()
    return [x.grad, *(p.grad for p in model.parameters())]


CASES: list[Callable[[torch.Tensor], Tensors]] = [
    func.grad(cubes),
    func.hessian(cubes),
    func.jacfwd(lambda x: x.sin() * x.sum()),
    func.jacrev(lambda x: x.sin() * x.sum()),
    lambda x: func.jvp(cubes, (x,), (x.cos(),)),
    lambda x: func.vjp(torch.tanh, x)[1](x),
    lambda x: func.vmap(lambda row: row.softmax(0) @ row)(x),
    of_each_example,
    penalised,
    checkpointed,
]


def flat(found: Tensors) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found.detach().cpu()]
    return [tensor for item in found for tensor in flat(item)]


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")  # torch.func's own
@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_a_cpu(case: Callable[[torch.Tensor], Tensors]) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    expected, made = flat(case(x.clone())), flat(case(x.to("genie")))
    assert len(made) == len(expected) > 0
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
