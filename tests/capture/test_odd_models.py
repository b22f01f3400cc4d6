"""Models that people write and tutorials do not: each gives eager's bits, and loses nothing."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from tests.capture.compiling import check, compile_module, example, spec_of, with_forward
from tests.capture.reference import same_bits

X: dict[str, Any] = {"x": ("float32", ["b", 6])}
Pair = namedtuple("Pair", "first second")


def linear(**more: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return {"l": nn.Linear(6, 6), **more}


def tied_views() -> nn.Module:
    weight = nn.Parameter(torch.randn(10, 6))
    return with_forward(
        lambda self, x: (x @ self.t, functional.linear(x, self.h), functional.linear(x, self.e)),
        e=weight,
        t=nn.Parameter(weight.detach().t()),
        h=nn.Parameter(weight.data[:5]),
    )


def hooks() -> nn.Module:
    model = with_forward(lambda self, x: self.l(x), **linear())
    model.l.register_forward_hook(lambda m, i, o: o * 2)  # type: ignore[union-attr]
    model.l.register_forward_pre_hook(lambda m, i: (i[0] + 1,))  # type: ignore[union-attr]
    model.register_forward_pre_hook(
        lambda m, a, k: (a, {n: v * 3 for n, v in k.items()}), with_kwargs=True
    )
    return model


def parametrized() -> nn.Module:
    model = with_forward(lambda self, x: self.c(self.b(self.a(x))), **linear())
    model.a = parametrizations.weight_norm(nn.Linear(6, 6))
    model.b = parametrizations.spectral_norm(nn.Linear(6, 6))
    model.c = parametrizations.orthogonal(nn.Linear(6, 6))
    return model


def pruned() -> nn.Module:
    model = with_forward(lambda self, x: self.l(x), **linear())
    prune.l1_unstructured(model.l, "weight", 0.5)
    return model


def scripted_function() -> nn.Module:
    doubled = torch.jit.script(_twice)
    return with_forward(lambda self, x: doubled(self.l(x)), **linear())


def _twice(x: Tensor) -> Tensor:
    return x * 2 + 1


def float8() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x @ (self.w.to(torch.float32) * self.s)

    weight = torch.randn(6, 6).to(torch.float8_e4m3fn)
    return with_forward(forward, w=weight, s=torch.tensor(0.5))


def int8_weights() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return functional.linear(x, self.w.to(torch.float32) * self.s.unsqueeze(1))

    weight = torch.randn(6, 6)
    scale = weight.abs().amax(1) / 127
    quantised = (weight / scale.unsqueeze(1)).round().to(torch.int8)
    return with_forward(forward, w=quantised, s=scale)


def with_out() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Any:
        made = torch.empty_like(x)
        same = torch.add(x, self.l.bias, out=made)
        torch.mul(same, 2, out=made[:, :])
        return made, same

    return with_forward(forward, **linear())


def branches_that_share_weights() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(
            x.sum() > 0, lambda y: self.l(y), lambda y: self.l(self.l(y)), (x,)
        )
        return chosen + self.l(x)

    return with_forward(forward, **linear())


def named_results() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Any:
        return Pair(self.l(x), [None, {"a": x, "b": None}]), 3, True, "text", 2.5, None

    return with_forward(forward, **linear())


def plain_list_of_modules() -> nn.Module:
    model = with_forward(lambda self, x: self.blocks[2](self.blocks[1](self.blocks[0](x))))
    model.blocks = [nn.Linear(6, 6) for _ in range(3)]  # type: ignore[assignment]
    return model


def infinities_that_mask() -> nn.Module:
    mask = torch.full((6, 6), float("-inf")).triu(1)
    return with_forward(lambda self, x: torch.softmax(x.unsqueeze(1) + self.m, -1), m=mask)


def nan_that_is_chosen() -> nn.Module:
    model = with_forward(lambda self, x: torch.where(x > 0, x, self.missing))
    model.missing = torch.tensor(float("nan"))
    return model


def last_result_in_an_attribute() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.last = self.l(x)
        return self.last * 2

    model = with_forward(forward, **linear())
    model.last = None  # type: ignore[assignment]
    return model


def table_made_once() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        if self.cosines is None:
            self.cosines = torch.cos(torch.arange(6.0))
        return x * self.cosines

    model = with_forward(forward)
    model.cosines = None  # type: ignore[assignment]
    return model


MODELS: list[Callable[[], nn.Module]] = [
    tied_views,
    hooks,
    parametrized,
    pruned,
    scripted_function,
    float8,
    int8_weights,
    with_out,
    branches_that_share_weights,
    named_results,
    plain_list_of_modules,
    infinities_that_mask,
    nan_that_is_chosen,
    last_result_in_an_attribute,
    table_made_once,
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_the_plan_gives_eagers_bits(build: Callable[[], nn.Module]) -> None:
    check(build(), X)


def test_inputs_of_no_dimension_and_of_bools() -> None:
    def forward(self: Any, t: Tensor, flag: Tensor, x: Tensor) -> Any:
        return torch.where(flag, x * t, x), t + 1, ~flag

    inputs = {"t": ("float32", []), "flag": ("bool", []), **X}
    check(with_forward(forward), inputs)


def test_optional_inputs_are_those_that_the_spec_gives() -> None:
    def forward(self: Any, x: Tensor, mask: Tensor | None = None, *, scale: Any = None) -> Tensor:
        y = self.l(x) if mask is None else self.l(x) * mask
        return y if scale is None else y * scale

    for more in ({}, {"scale": ("float32", [])}, {"mask": ("bool", ["b", 6])}):
        check(with_forward(forward, **linear()), X | more)


def test_spectral_norm_in_training_returns_its_vectors() -> None:
    torch.manual_seed(0)
    norm = parametrizations.spectral_norm(nn.Linear(6, 6))
    model = with_forward(lambda self, x: self.n(x), n=norm)
    compiled = compile_module(model.train(), spec_of(X))
    inputs = example(compiled.spec, {"b": 3})
    found = compiled.run(inputs)
    once = copy.deepcopy(model)
    with torch.no_grad():
        assert same_bits(found["output"], once(**inputs))
    buffers = dict(once.named_buffers())
    assert len(buffers) == 2
    for name, value in buffers.items():
        assert same_bits(found[f"updated.{name}"], value)


def test_batch_norm_that_runs_twice_updates_twice() -> None:
    torch.manual_seed(0)
    model = with_forward(lambda self, x: self.n(self.n(x)), n=nn.BatchNorm1d(6)).train()
    compiled = compile_module(model, spec_of(X, {"b": (2, 8)}))
    inputs = example(compiled.spec, {"b": 4})
    found = compiled.run(inputs)
    once = copy.deepcopy(model)
    with torch.no_grad():
        assert same_bits(found["output"], once(**inputs))
    for name, value in once.named_buffers():
        assert same_bits(found[f"updated.{name}"], value)
