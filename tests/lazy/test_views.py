"""Views, aliasing and in-place operators: what the device holds is what a CPU would hold."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

Step = Callable[[list[Tensor], random.Random], None]


def _pick(tensors: list[Tensor], rng: random.Random) -> Tensor:
    return tensors[rng.randrange(len(tensors))]


def _view(tensors: list[Tensor], rng: random.Random) -> None:
    base = _pick(tensors, rng)
    if base.dim() == 0:
        tensors.append(base.view(1))
        return
    axis = rng.randrange(base.dim())
    kind = rng.randrange(7)
    if kind == 0 and base.shape[axis]:
        tensors.append(base.select(axis, rng.randrange(base.shape[axis])))
    elif kind == 1:
        tensors.append(base.narrow(axis, 0, max(base.shape[axis] - 1, 0)))
    elif kind == 2:
        tensors.append(base.transpose(axis, base.dim() - 1))
    elif kind == 3:
        tensors.append(base.unsqueeze(axis))
    elif kind == 4:
        tensors.append(base[::2])
    elif kind == 5:
        tensors.append(base.reshape(-1))
    else:
        tensors.append(base.detach())


def _write(tensors: list[Tensor], rng: random.Random) -> None:
    target = _pick(tensors, rng)
    kind = rng.randrange(6)
    if kind == 0:
        target.add_(rng.randrange(1, 5))
    elif kind == 1:
        target.mul_(2)
    elif kind == 2:
        target.copy_(torch.full(target.shape, float(rng.randrange(9))))
    elif kind == 3:
        target.zero_()
    elif kind == 4 and target.dim():
        target[..., :1] = 7
    else:
        target.sub_(target.detach().clone() * 0.5)


def _make(tensors: list[Tensor], rng: random.Random) -> None:
    tensors.append(_pick(tensors, rng) + 1)


def _program(device: str, seed: int, looks: bool) -> list[Tensor]:
    rng = random.Random(seed)
    tensors = [torch.arange(24.0).view(2, 3, 4).to(device), torch.arange(3000.0).to(device)]
    for _ in range(14):
        rng.choice([_view, _view, _write, _write, _make])(tensors, rng)
        if looks and rng.random() < 0.3:
            _pick(tensors, rng).cpu()
        elif looks:
            rng.random()
    return [tensor.cpu() for tensor in tensors]


@given(seed=st.integers(0, 10**6), looks=st.booleans())
@settings(max_examples=60, deadline=None)
def test_random_programs_of_views_and_writes_equal_the_cpu(seed: int, looks: bool) -> None:
    found, wanted = _program("genie", seed, looks), _program("cpu", seed, looks)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert torch.equal(a, b)


def test_a_view_sees_what_is_written_to_its_base_after_a_run() -> None:
    base = torch.arange(2000.0).view(2, 1000).to("genie")
    row = base[1]
    assert row.sum().item() == sum(range(1000, 2000))
    base.fill_(3)
    assert row.sum().item() == 3000
    row.t_() if row.dim() == 2 else row.neg_()
    assert base.cpu()[1].unique().tolist() == [-3.0]
    assert base.cpu()[0].unique().tolist() == [3.0]


def test_layouts_change_in_place_without_touching_bytes() -> None:
    there, here = (torch.arange(6.0).view(2, 3).to(d) for d in ("genie", "cpu"))
    for tensor in (there, here):
        tensor.t_()
        tensor.unsqueeze_(0)
        tensor.add_(1)
    assert there.shape == here.shape
    assert there.stride() == here.stride()
    assert torch.equal(there.cpu(), here)


def test_strides_survive_the_way_there_and_back() -> None:
    image = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last)
    there = image.to("genie")
    assert there.stride() == image.stride()
    assert torch.equal((there * 2).cpu(), image * 2)
    assert torch.equal(there.permute(3, 1, 0, 2).cpu(), image.permute(3, 1, 0, 2))


def test_complex_and_retyped_views() -> None:
    values = torch.randn(4, 3, dtype=torch.complex64)
    there = values.to("genie")
    assert torch.equal(there.conj().cpu(), values.conj().resolve_conj())
    real = torch.view_as_real(there)
    there.cpu()
    real[..., 1].zero_()
    assert torch.equal(there.cpu().imag, torch.zeros(4, 3))
    bits = torch.tensor([1.0, -2.0]).to("genie").view(torch.int32)
    assert bits.tolist() == torch.tensor([1.0, -2.0]).view(torch.int32).tolist()


def test_out_arguments_and_resizing() -> None:
    out = torch.empty(0, device="genie")
    torch.add(torch.ones(3, device="genie"), 1, out=out)
    assert out.tolist() == [2, 2, 2]
    out.resize_(5)
    assert out[:3].tolist() == [2, 2, 2]
    assert out.shape == (5,)


def test_tensors_of_two_devices_are_refused_as_torch_refuses_them() -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.ones(3, device="genie") + torch.ones(3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_dtypes_there_and_back(dtype: torch.dtype) -> None:
    values = torch.arange(5000).remainder(2).to(dtype)
    assert torch.equal(values.to("genie").cpu(), values)


def test_views_in_inference_mode_are_what_their_base_is() -> None:
    weight = torch.arange(12.0).view(3, 4).to("genie")
    with torch.inference_mode():
        turned, rows, inner = weight.t(), weight.unbind(0), (weight + 1).t()
        assert [turned.is_inference(), rows[0].is_inference(), inner.is_inference()] == [
            False,
            False,
            True,
        ]
        turned[0].mul_(2)
    assert torch.equal(weight[:, 0].cpu(), torch.tensor([0.0, 8.0, 16.0]))
